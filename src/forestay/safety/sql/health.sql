-- name: judged
-- Counts judgements since $1 that had an effect, and among them those that no detector could make. Of lines that models
-- print only the conspicuous ones are recorded: they say nothing about a share.
SELECT count(*)::int AS judged,
       count(*) FILTER (WHERE verdict = 'inconclusive')::int AS unjudged,
       count(DISTINCT model_id) FILTER (WHERE verdict = 'inconclusive')::int AS models,
       count(DISTINCT tenant_id) FILTER (WHERE verdict = 'inconclusive')::int AS tenants,
       min(at) FILTER (WHERE verdict = 'inconclusive') AS first_at
FROM verdict_facts WHERE at >= $1 AND NOT shadow AND point <> 'lines';
