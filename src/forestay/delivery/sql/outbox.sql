-- name: claim
-- Claim up to $1 due webhooks (for $2 seconds the first time, $3 later), $4 a tenant, none of tenants $5; counts the try.
WITH due AS (
    SELECT request_id, tenant_id, next_try_at
    FROM webhooks
    WHERE state = 'pending' AND next_try_at <= now() AND tenant_id <> ALL ($5::text[])
    ORDER BY next_try_at
    LIMIT 20 * $1
), chosen AS (
    SELECT request_id, next_try_at,
           row_number() OVER (PARTITION BY tenant_id ORDER BY next_try_at, request_id) AS place
    FROM due
), locked AS (
    SELECT webhooks.request_id
    FROM webhooks
    JOIN chosen ON chosen.request_id = webhooks.request_id AND chosen.place <= $4
    WHERE webhooks.state = 'pending' AND webhooks.next_try_at <= now()
    ORDER BY chosen.next_try_at
    LIMIT $1
    FOR UPDATE OF webhooks SKIP LOCKED
)
UPDATE webhooks
SET tries = tries + 1,
    next_try_at = now() + make_interval(secs => CASE WHEN tries = 0 THEN $2::float8 ELSE $3::float8 END)
FROM locked
WHERE webhooks.request_id = locked.request_id
RETURNING webhooks.request_id, webhooks.tenant_id, webhooks.url, webhooks.tries;

-- name: settle
-- Write what followed from try $2, and the fact of a notice that has ended; a later try's claim has another number and
-- is left alone.
WITH settled AS (
    UPDATE webhooks
    SET state = $3,
        next_try_at = coalesce($4::timestamptz, next_try_at),
        last_status = $5,
        last_error = $6,
        delivered_at = CASE WHEN $3 = 'delivered' THEN now() END
    WHERE request_id = $1 AND tries = $2 AND state = 'pending'
    RETURNING request_id, tenant_id, state, tries, last_status
), facts AS (
    INSERT INTO fact_outbox (facts)
    SELECT json_agg(d) FROM (
        SELECT 'delivery' AS kind, clock_timestamp() AS finished_at, s.request_id, s.tenant_id, f.model_id, f.endpoint,
               f.revision_id, s.state AS outcome, s.tries, s.last_status AS status_code,
               f.finished_at AS request_finished_at
        FROM settled s
        JOIN finished_requests f ON f.request_id = s.request_id
        WHERE s.state <> 'pending'
    ) AS d
    HAVING count(*) > 0
)
SELECT request_id FROM settled;

-- name: forget
-- Delete up to $2 webhooks older than $1 seconds that are delivered or dead.
DELETE FROM webhooks
WHERE request_id IN (
    SELECT request_id FROM webhooks
    WHERE state <> 'pending' AND created_at < now() - make_interval(secs => $1::float8)
    LIMIT $2
)
RETURNING request_id;
