-- name: begin
-- Stores a new rollout; no row comes back when the model has one that is not settled.
INSERT INTO rollouts (rollout_id, model_id, version, settled, state) VALUES ($1, $2, $3, $4, $5::text::jsonb)
ON CONFLICT DO NOTHING RETURNING rollout_id;

-- name: open
-- Reads the rollouts that are not settled, oldest first.
SELECT state::text FROM rollouts WHERE NOT settled ORDER BY started_at, rollout_id;

-- name: get
-- Reads one rollout.
SELECT state::text FROM rollouts WHERE rollout_id = $1;

-- name: newest
-- Reads rollouts, newest first, of the model $1 (empty: of every model), at most $2.
SELECT state::text FROM rollouts WHERE $1 = '' OR model_id = $1 ORDER BY started_at DESC, rollout_id LIMIT $2;

-- name: save
-- Stores version $2 of a rollout if the version before it is stored.
UPDATE rollouts SET version = $2, settled = $3, state = $4::text::jsonb
WHERE rollout_id = $1 AND version = $2 - 1 RETURNING rollout_id;

-- name: note
-- Appends a step to the journal.
INSERT INTO rollout_journal (rollout_id, version, at, actor, stage, weight, reason) VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: journal
-- Reads the steps of a rollout, first to last.
SELECT version, at, actor, stage, weight, reason FROM rollout_journal WHERE rollout_id = $1 ORDER BY version;
