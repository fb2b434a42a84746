-- name: take_turn
-- Lets one writer at a time go on, so that positions become visible in their order and the chain skips none.
SELECT pg_advisory_xact_lock(4660003);

-- name: keep
-- Appends verdict records; one that is there already (written before an unclear answer) is left as it is.
INSERT INTO verdict_facts (
    at, verdict_id, request_id, attempt, point, tenant_id, key_id, model_id, revision_id, policy_id, policy_version,
    policy_digest, shadow, verdict, action, category, place, reason, checks, judged, seconds, salt,
    beside
)
SELECT at, verdict_id, request_id, attempt, point, tenant_id, key_id, model_id, revision_id, policy_id, policy_version,
       policy_digest, shadow, verdict, action, category, place, reason, checks,
       ARRAY(SELECT jsonb_array_elements_text(judged)), seconds, decode(salt, 'base64'), coalesce(beside, '')
FROM jsonb_to_recordset($1::text::jsonb) AS f (
    at timestamptz, verdict_id uuid, request_id uuid, attempt int, point text, tenant_id text, key_id text,
    model_id text, revision_id text, policy_id text, policy_version int, policy_digest text, shadow boolean,
    verdict text, action text, category text, place text, reason text, checks jsonb, judged jsonb, seconds float8,
    salt text, beside text
)
ON CONFLICT DO NOTHING;

-- name: of_request
-- Reads the records of request $1 in order, at most $2.
SELECT at, verdict_id, request_id, attempt, point, tenant_id, key_id, model_id, revision_id, policy_id, policy_version,
       policy_digest, shadow, verdict, action, category, place, reason, checks::text AS checks, judged, seconds, salt,
       beside, position
FROM verdict_facts WHERE request_id = $1 ORDER BY position LIMIT $2;

-- name: of_requests
-- Reads the records of the requests $1 of model $2 that had effect, in order, at most $3.
SELECT at, verdict_id, request_id, attempt, point, tenant_id, key_id, model_id, revision_id, policy_id, policy_version,
       policy_digest, shadow, verdict, action, category, place, reason, checks::text AS checks, judged, seconds, salt,
       beside, position
FROM verdict_facts WHERE request_id = ANY($1::uuid[]) AND model_id = $2 AND NOT shadow ORDER BY position LIMIT $3;

-- name: between
-- Reads records from $1 on, before $2, after position $3, at most $4, in order.
SELECT at, verdict_id, request_id, attempt, point, tenant_id, key_id, model_id, revision_id, policy_id, policy_version,
       policy_digest, shadow, verdict, action, category, place, reason, checks::text AS checks, judged, seconds, salt,
       beside, position
FROM verdict_facts WHERE at >= $1 AND at < $2 AND position > $3 ORDER BY position LIMIT $4;

-- name: newest
-- Reads the newest position; null where there is no record.
SELECT max(position) AS head FROM verdict_facts;

-- name: first_since
-- Reads the position of the first record from $1 on; by time, since positions have no day.
SELECT position FROM verdict_facts WHERE at >= $1 ORDER BY at LIMIT 1;

-- name: throttled
-- Reads what counts against its caller, after position $1 and up to $2, at most $4; $3 names the partitions to look at.
SELECT request_id, at, position FROM verdict_facts
WHERE position > $1 AND position <= $2 AND at >= $3 AND action = 'throttle' AND NOT shadow
ORDER BY position LIMIT $4;

-- name: unsealed
-- Reads the records after position $1 in order, at most $2; $3 names the partitions to look at.
SELECT at, verdict_id, request_id, attempt, point, tenant_id, key_id, model_id, revision_id, policy_id, policy_version,
       policy_digest, shadow, verdict, action, category, place, reason, checks::text AS checks, judged, seconds, salt,
       beside, position
FROM verdict_facts WHERE position > $1 AND at >= $3 ORDER BY position LIMIT $2;

-- name: last_seal
-- Reads the newest seal.
SELECT sequence, sealed_at, first_position, last_position, rows, root, previous, hash
FROM verdict_seals ORDER BY sequence DESC LIMIT 1;

-- name: seal
-- Adds a seal after the one with sequence $1 - 1; adds none when somebody else was quicker.
INSERT INTO verdict_seals (sequence, sealed_at, first_position, last_position, rows, root, previous, hash)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING RETURNING sequence;

-- name: seals
-- Reads seals after sequence $1 in order, at most $2.
SELECT sequence, sealed_at, first_position, last_position, rows, root, previous, hash
FROM verdict_seals WHERE sequence > $1 ORDER BY sequence LIMIT $2;

-- name: sealed_rows
-- Reads the records from position $1 to position $2, both included.
SELECT at, verdict_id, request_id, attempt, point, tenant_id, key_id, model_id, revision_id, policy_id, policy_version,
       policy_digest, shadow, verdict, action, category, place, reason, checks::text AS checks, judged, seconds, salt,
       beside, position
FROM verdict_facts WHERE position BETWEEN $1 AND $2 ORDER BY position;

-- name: oldest
-- Reads the position of the oldest record that is still kept.
SELECT position FROM verdict_facts ORDER BY position LIMIT 1;

-- name: make_partition
-- Makes one day's partition unless it is there.
SELECT forestay_make_partition('verdict_facts', $1, 'at', $2, $3);

-- name: drop_partitions
-- Drops the partitions whose day is before $1 (yyyymmdd).
SELECT forestay_drop_partitions('verdict_facts', $1);
