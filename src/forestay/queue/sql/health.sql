-- name: waiting
-- Finds for each model the first waiting request that may run now, and counts those behind it, at most a thousand: from
-- model to model along the index, so that a long queue costs no more.
WITH RECURSIVE models AS (
    (SELECT r.model_id FROM requests r WHERE r.worker_id IS NULL ORDER BY r.model_id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT r.model_id FROM requests r WHERE r.worker_id IS NULL AND r.model_id > m.model_id ORDER BY r.model_id LIMIT 1
    )
    FROM models m WHERE m.model_id IS NOT NULL
)
SELECT m.model_id, extract(epoch FROM now() - q.available_at)::float8 AS seconds, c.waiting::int AS waiting
FROM models m
CROSS JOIN LATERAL (
    SELECT greatest(r.submitted_at, r.available_at) AS available_at FROM requests r
    WHERE r.worker_id IS NULL AND r.model_id = m.model_id AND r.state = 'queued' AND r.available_at <= now()
    ORDER BY r.order_at LIMIT 1
) q
CROSS JOIN LATERAL (
    SELECT count(*) AS waiting FROM (
        SELECT FROM requests r
        WHERE r.worker_id IS NULL AND r.model_id = m.model_id AND r.state = 'queued' LIMIT 1000
    ) seen
) c;

-- name: withheld
-- Counts withheld requests, and finds how long the oldest has waited for a verdict.
SELECT count(*)::int AS requests,
       coalesce(extract(epoch FROM now() - min(submitted_at)), 0)::float8 AS seconds
FROM requests WHERE withheld IS NOT NULL;
