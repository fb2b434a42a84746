-- name: load
-- Reads the whole snapshot.
SELECT part, data FROM quality_watch;

-- name: meta
-- Reads the part that says how far the snapshot goes: enough to see whether another process has written since.
SELECT data FROM quality_watch WHERE part = 'meta';

-- name: save
-- Writes one part.
INSERT INTO quality_watch (part, data) VALUES ($1, $2)
ON CONFLICT (part) DO UPDATE SET data = excluded.data, saved_at = now();

-- name: drop
-- Removes the parts named in $1: their streams are over.
DELETE FROM quality_watch WHERE part = ANY($1::text[]);

-- name: holds
-- Reads what is held back, the newest first; what was lifted before $1 is left out.
SELECT worker_id, revision_id, model_id, replica_id, finding_id, reason, held_at, lifted_at, lifted_for, alone, replicas, given_back
FROM quality_holds WHERE lifted_at IS NULL OR lifted_at >= $1 ORDER BY held_at DESC LIMIT 1000;

-- name: hold
-- Notes that a worker gets no replica of a revision until a self-test has passed.
INSERT INTO quality_holds
    (worker_id, revision_id, model_id, replica_id, finding_id, reason, held_at, alone, replicas)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING;

-- name: give_back
-- Notes that what was lifted of a revision ($2) on a worker ($1) is wanted again.
UPDATE quality_holds SET given_back = true
WHERE worker_id = $1 AND revision_id = $2 AND lifted_at IS NOT NULL AND NOT given_back;

-- name: lift
-- Ends what is held back of a revision ($2) on a worker ($1).
UPDATE quality_holds SET lifted_at = $3, lifted_for = $4
WHERE worker_id = $1 AND revision_id = $2 AND lifted_at IS NULL RETURNING worker_id;

-- name: forget_holds
-- Removes what was lifted before $1.
DELETE FROM quality_holds WHERE lifted_at < $1;
