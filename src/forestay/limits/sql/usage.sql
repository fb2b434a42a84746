-- name: add
-- Adds settled usage, a row a subject and month, in the order of the key so that two writers cannot deadlock.
INSERT INTO usage (month, tenant_id, key_id, model_id, gpu_seconds, money, requests)
SELECT * FROM unnest($1::date[], $2::text[], $3::text[], $4::text[], $5::float8[], $6::float8[], $7::bigint[])
    AS u (month, tenant_id, key_id, model_id, gpu_seconds, money, requests)
ORDER BY month, tenant_id, key_id, model_id
ON CONFLICT (month, tenant_id, key_id, model_id) DO UPDATE
SET gpu_seconds = usage.gpu_seconds + excluded.gpu_seconds, money = usage.money + excluded.money,
    requests = usage.requests + excluded.requests;

-- name: add_once
-- The same for batch $9 of source $8, unless that batch was added before (its answer may have been lost).
WITH mark AS (
    INSERT INTO usage_marks (source, sequence) VALUES ($8, $9)
    ON CONFLICT (source) DO UPDATE SET sequence = excluded.sequence, at = now()
    WHERE usage_marks.sequence < excluded.sequence
    RETURNING source
)
INSERT INTO usage (month, tenant_id, key_id, model_id, gpu_seconds, money, requests)
SELECT u.* FROM unnest($1::date[], $2::text[], $3::text[], $4::text[], $5::float8[], $6::float8[], $7::bigint[])
    AS u (month, tenant_id, key_id, model_id, gpu_seconds, money, requests)
WHERE EXISTS (SELECT FROM mark)
ORDER BY month, tenant_id, key_id, model_id
ON CONFLICT (month, tenant_id, key_id, model_id) DO UPDATE
SET gpu_seconds = usage.gpu_seconds + excluded.gpu_seconds, money = usage.money + excluded.money,
    requests = usage.requests + excluded.requests;

-- name: spent
-- Sums month $1 for each subject ($2 scopes, $3 ids, $4 the tenants of keys); n counts them from 1.
WITH s AS MATERIALIZED (
    SELECT * FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS s (scope, id, tenant_id, n)
)
SELECT s.n, coalesce(sum(u.gpu_seconds), 0) AS gpu_seconds, coalesce(sum(u.money), 0) AS money,
       coalesce(sum(u.requests), 0)::bigint AS requests
FROM s LEFT JOIN usage u ON u.month = $1 AND u.tenant_id = s.id
WHERE s.scope = 'tenant' GROUP BY s.n
UNION ALL
SELECT s.n, coalesce(sum(u.gpu_seconds), 0), coalesce(sum(u.money), 0), coalesce(sum(u.requests), 0)::bigint
FROM s LEFT JOIN usage u ON u.month = $1 AND u.tenant_id = s.tenant_id AND u.key_id = s.id
WHERE s.scope = 'key' GROUP BY s.n
UNION ALL
SELECT s.n, coalesce(sum(u.gpu_seconds), 0), coalesce(sum(u.money), 0), coalesce(sum(u.requests), 0)::bigint
FROM s LEFT JOIN usage u ON u.month = $1 AND u.model_id = s.id
WHERE s.scope = 'model' GROUP BY s.n
UNION ALL
SELECT s.n, coalesce(sum(u.gpu_seconds), 0), coalesce(sum(u.money), 0), coalesce(sum(u.requests), 0)::bigint
FROM s LEFT JOIN usage u ON u.month = $1
WHERE s.scope = 'fleet' GROUP BY s.n;

-- name: by_model
-- Lists what month $1 has cost, a row a model, dearest first; $2, $3 and $4 null mean every tenant, key and model.
SELECT model_id, sum(gpu_seconds) AS gpu_seconds, sum(money) AS money, sum(requests)::bigint AS requests
FROM usage
WHERE month = $1 AND ($2::text IS NULL OR tenant_id = $2) AND ($3::text IS NULL OR key_id = $3)
  AND ($4::text IS NULL OR model_id = $4)
GROUP BY model_id ORDER BY sum(gpu_seconds) DESC, model_id LIMIT 1000;

-- name: close_later
-- Notes settled requests whose predictions the counters still hold.
INSERT INTO limit_closings (request_id, tenant_id, key_id, model_id, gpu_seconds)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::float8[]);

-- name: closings
-- Reads the oldest of them.
SELECT position, request_id, tenant_id, key_id, model_id, gpu_seconds FROM limit_closings ORDER BY position LIMIT $1;

-- name: closed
-- Removes those that the counters have been told.
DELETE FROM limit_closings WHERE position = ANY ($1::bigint[]);

-- name: tidy
-- Removes marks and gateways of processes long gone, and closings that no counter can still hold.
WITH marks AS (DELETE FROM usage_marks WHERE at < now() - interval '7 days'),
     gateways AS (DELETE FROM gateways_seen WHERE seen_at < now() - interval '1 day')
DELETE FROM limit_closings WHERE at < now() - interval '1 day';
