-- name: measured
-- Adds up what ended on the revision $1 of the model $3 since $2: how much, how it ended, how long it took.
SELECT count(*) AS requests,
       count(*) FILTER (WHERE cause IN ('model', 'memory', 'cold_start', 'worker', 'platform', 'upstream')
                        AND outcome <> 'broken_output') AS failed,
       count(*) FILTER (WHERE outcome = 'broken_output') AS broken,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - started_at)::float8)
           FILTER (WHERE outcome = 'succeeded' AND started_at IS NOT NULL) AS seconds_median,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - started_at)::float8)
           FILTER (WHERE outcome = 'succeeded' AND started_at IS NOT NULL) AS seconds_p95
FROM request_facts
WHERE model_id = $3 AND revision_id = $1 AND finished_at >= $2 AND outcome NOT IN ('caller_error', 'cancelled', 'safety');
