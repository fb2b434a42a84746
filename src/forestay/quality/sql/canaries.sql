-- name: baselines
-- Reads from which revisions on goldens of a model hold.
SELECT model_id, revision_id, revision_at, since, approved_by, reason
FROM quality_baselines WHERE model_id = $1 ORDER BY revision_at;

-- name: begin
-- Notes a model's first baseline; nothing where it has one.
INSERT INTO quality_baselines (model_id, revision_id, revision_at, since)
SELECT $1, $2, $3, $4 WHERE NOT EXISTS (SELECT 1 FROM quality_baselines WHERE model_id = $1)
ON CONFLICT DO NOTHING;

-- name: approve
-- Notes a baseline that a person approved.
INSERT INTO quality_baselines (model_id, revision_id, revision_at, since, approved_by, reason)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (model_id, revision_id) DO UPDATE SET since = $4, approved_by = $5, reason = $6;

-- name: unlearn
-- Removes the looks of a baseline that is approved anew.
DELETE FROM quality_golden_looks WHERE model_id = $1 AND revision_id = $2;

-- name: taught
-- Reads the looks of one baseline.
SELECT canary, environment, replica_id, look::text AS look, picture_key, settled, look_id
FROM quality_golden_looks WHERE model_id = $1 AND revision_id = $2 ORDER BY look_id LIMIT 5000;

-- name: teach
-- Adds looks ($3: a JSON array) to a baseline.
INSERT INTO quality_golden_looks (model_id, revision_id, canary, environment, replica_id, look, picture_key, settled)
SELECT $1, $2, value->>'canary', value->>'environment', value->>'replica_id', value->'look', value->>'picture_key',
       (value->>'settled')::boolean
FROM jsonb_array_elements($3::text::jsonb);

-- name: settle
-- Notes that the looks $1 are a golden; nothing where one of the same canary and environment is settled.
UPDATE quality_golden_looks AS looks SET settled = true
WHERE look_id = ANY($1::bigint[]) AND NOT EXISTS (
    SELECT 1 FROM quality_golden_looks AS other
    WHERE (other.model_id, other.revision_id, other.canary, other.environment)
        = (looks.model_id, looks.revision_id, looks.canary, looks.environment) AND other.settled
);

-- name: note
-- Keeps a round.
INSERT INTO quality_canary_rounds
    (model_id, revision_id, replica_id, worker_id, cause, began_at, device_seconds, ended, words, canaries)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text::jsonb);

-- name: rounds
-- Reads the newest rounds of a model.
SELECT model_id, revision_id, replica_id, worker_id, cause, began_at, device_seconds, ended, words,
       canaries::text AS canaries, round_id
FROM quality_canary_rounds WHERE model_id = $1 ORDER BY round_id DESC LIMIT $2;

-- name: ask
-- Asks for a round; an open ask of the same kind is returned instead, while workers still look at it (15 minutes).
WITH open AS (
    SELECT ask_id FROM quality_canary_asks
    WHERE (model_id, revision_id, worker_id, cause) = ($1, $2, $3, $4) AND answered_at IS NULL
      AND worker_id <> '' AND asked_at > $5::timestamptz - interval '10 minutes'
    ORDER BY ask_id DESC LIMIT 1
), made AS (
    INSERT INTO quality_canary_asks (model_id, revision_id, worker_id, cause, asked_at, reason)
    SELECT $1, $2, $3, $4, $5, $6 WHERE NOT EXISTS (SELECT 1 FROM open) RETURNING ask_id
)
SELECT ask_id FROM open UNION ALL SELECT ask_id FROM made;

-- name: asks
-- Reads the open asks made at $1 or later.
SELECT model_id, revision_id, worker_id, cause, asked_at, reason, ask_id
FROM quality_canary_asks WHERE asked_at >= $1 AND answered_at IS NULL ORDER BY ask_id LIMIT 1000;

-- name: answer
-- Notes the result of a self-test.
UPDATE quality_canary_asks SET answered_at = $2, passed = $3, differed = $4, words = $5
WHERE ask_id = $1 AND answered_at IS NULL;

-- name: results
-- Reads of each worker and revision when it was last tested since $1, whether it passed, and whether it drew otherwise.
SELECT DISTINCT ON (worker_id, revision_id) worker_id, revision_id, answered_at, passed, differed
FROM quality_canary_asks WHERE answered_at >= $1 AND cause = 'self_test'
ORDER BY worker_id, revision_id, answered_at DESC;

-- name: forget
-- Removes rounds that began before $1, at most $2; returns keys of their pictures that nothing else shows.
WITH gone AS (
    DELETE FROM quality_canary_rounds WHERE round_id IN (
        SELECT round_id FROM quality_canary_rounds WHERE began_at < $1 ORDER BY began_at LIMIT $2
    ) RETURNING round_id, canaries
), keys AS (
    SELECT DISTINCT item->>'picture_key' AS picture_key FROM gone, jsonb_array_elements(gone.canaries) AS item
)
SELECT picture_key FROM keys
WHERE picture_key <> ''
  AND NOT EXISTS (SELECT 1 FROM quality_golden_looks AS looks WHERE looks.picture_key = keys.picture_key)
  AND NOT EXISTS (
      SELECT 1 FROM quality_canary_rounds AS rounds
      WHERE rounds.round_id NOT IN (SELECT round_id FROM gone)
        AND rounds.canaries @> jsonb_build_array(jsonb_build_object('picture_key', keys.picture_key))
  );

-- name: forget_asks
-- Removes asks made before $1.
DELETE FROM quality_canary_asks WHERE asked_at < $1;
