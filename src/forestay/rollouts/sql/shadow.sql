-- name: offer
-- Keeps a request that may be mirrored; at most $10 wait for one revision and stratum, so that a busy model does not
-- fill the table, and what the revision before has left takes no place from the one that serves now.
INSERT INTO shadow_offers (request_id, model_id, revision_id, endpoint, stratum, body, answer, device_seconds, at)
SELECT $1::uuid, $2::text, $3::text, $4::text, $5::text, $6::bytea, $7::bytea, $8::float8, $9::timestamptz
WHERE (SELECT count(*) FROM shadow_offers WHERE model_id = $2 AND revision_id = $3 AND stratum = $5) < $10::int
ON CONFLICT DO NOTHING;

-- name: offers
-- Reads the newest offers of the model $1, at most $2.
SELECT request_id, model_id, revision_id, endpoint, stratum, body, answer, device_seconds, at
FROM shadow_offers WHERE model_id = $1 ORDER BY at DESC, request_id LIMIT $2;

-- name: begin_pair
-- Notes a pair; no row comes back when the request is noted already.
INSERT INTO shadow_pairs (rollout_id, request_id, begun_at, state) VALUES ($1, $2, $3, $4::text::jsonb)
ON CONFLICT DO NOTHING RETURNING request_id;

-- name: end_pair
-- Notes what came of a pair that has no end yet.
UPDATE shadow_pairs SET ended = true, state = $3::text::jsonb
WHERE rollout_id = $1 AND request_id = $2 AND NOT ended;

-- name: pairs
-- Reads the pairs of a rollout in the order in which they were begun.
SELECT state::text FROM shadow_pairs WHERE rollout_id = $1 ORDER BY number;

-- name: forget_offers
-- Drops offers older than $1.
DELETE FROM shadow_offers WHERE at < $1;

-- name: forget_pairs
-- Drops pairs begun before $1, and returns where their pictures lie.
DELETE FROM shadow_pairs WHERE begun_at < $1 RETURNING state -> 'outcome' ->> 'sheet_key' AS sheet_key;
