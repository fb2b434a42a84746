-- name: list
-- Lists webhooks in state $1, newest first.
SELECT request_id, tenant_id, url, state, tries, next_try_at, last_status, last_error, created_at, delivered_at
FROM webhooks WHERE state = $1 ORDER BY created_at DESC LIMIT $2;

-- name: revive
-- Makes a dead webhook due now, with all its tries again; no row comes back when it is not dead.
UPDATE webhooks SET state = 'pending', tries = 0, next_try_at = now(), last_error = NULL
WHERE request_id = $1 AND state = 'dead' RETURNING request_id;
