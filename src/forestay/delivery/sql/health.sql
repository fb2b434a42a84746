-- name: health
-- Counts webhooks given up since $1, and finds the oldest one that is due and waits.
SELECT (SELECT count(*) FROM webhooks WHERE state = 'dead' AND created_at >= $1)::int AS dead,
       (SELECT count(DISTINCT tenant_id) FROM webhooks WHERE state = 'dead' AND created_at >= $1)::int AS tenants,
       (SELECT min(next_try_at) FROM webhooks WHERE state = 'pending') AS oldest_due_at,
       now() AS now;
