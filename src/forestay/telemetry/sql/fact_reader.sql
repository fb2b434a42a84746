-- name: of_request
-- Reads what was recorded when request $1 finished, between two moments (which names the partitions to look at).
SELECT to_jsonb(request_facts)::text AS fact FROM request_facts
WHERE request_id = $1 AND finished_at BETWEEN $2 AND $3 ORDER BY finished_at LIMIT 1;

-- name: of_attempts
-- Reads what was recorded of the attempts of request $1, between two moments.
SELECT to_jsonb(attempt_facts)::text AS fact FROM attempt_facts
WHERE request_id = $1 AND finished_at BETWEEN $2 AND $3 ORDER BY attempt LIMIT 100;

-- name: of_deliveries
-- Reads what became of the webhook of request $1, between two moments.
SELECT to_jsonb(delivery_facts)::text AS fact FROM delivery_facts
WHERE request_id = $1 AND finished_at BETWEEN $2 AND $3 ORDER BY finished_at LIMIT 10;

-- name: of_verdicts
-- Reads when request $1 was judged, between two moments, and how it ended: no scores, no content.
SELECT jsonb_build_object('at', at, 'seconds', seconds, 'point', point, 'verdict', verdict, 'attempt', attempt)::text AS fact
FROM verdict_facts WHERE request_id = $1 AND at BETWEEN $2 AND $3 AND NOT shadow ORDER BY at LIMIT 100;
