-- name: columns
-- Lists the columns of a table with their types, in order.
SELECT attname AS name, format_type(atttypid, NULL) AS kind FROM pg_attribute
WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum;

-- name: request_facts
-- Reads request facts of [$1, $2) after ($3, $4), at most $5.
SELECT * FROM request_facts
WHERE finished_at >= $1 AND finished_at < $2 AND (finished_at, request_id) > ($3::timestamptz, $4::uuid)
ORDER BY finished_at, request_id LIMIT $5;

-- name: attempt_facts
-- Reads attempt facts of [$1, $2) after ($3, $4), at most $5.
SELECT * FROM attempt_facts
WHERE finished_at >= $1 AND finished_at < $2 AND (finished_at, request_id) > ($3::timestamptz, $4::uuid)
ORDER BY finished_at, request_id LIMIT $5;

-- name: delivery_facts
-- Reads delivery facts of [$1, $2) after ($3, $4), at most $5.
SELECT * FROM delivery_facts
WHERE finished_at >= $1 AND finished_at < $2 AND (finished_at, request_id) > ($3::timestamptz, $4::uuid)
ORDER BY finished_at, request_id LIMIT $5;
