-- name: start
-- Begins a drill ($1 to $9 as in drills/model.py Drill).
INSERT INTO drills (drill_id, fault, model_id, revision_id, worker_id, reason, started_by, started_at, ends_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: standing
-- Reads the drills that end after $1, those begun last first.
SELECT drill_id, fault, model_id, revision_id, worker_id, reason, started_by, started_at, ends_at
FROM drills WHERE ends_at > $1 ORDER BY started_at DESC, drill_id LIMIT $2;

-- name: stop
-- Ends a drill ($1) at $2; no row where it has ended or never was.
UPDATE drills SET ends_at = $2 WHERE drill_id = $1 AND ends_at > $2 RETURNING drill_id;

-- name: note
-- Keeps what became of a drill ($1) in a replica ($2) of a worker ($3): $4, at $5.
INSERT INTO drill_sightings (drill_id, replica_id, worker_id, said, at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (drill_id, replica_id) DO UPDATE SET said = EXCLUDED.said, at = EXCLUDED.at;

-- name: sightings
-- Reads what became of drills ($1: their ids), by replica.
SELECT drill_id, replica_id, worker_id, said, at FROM drill_sightings
WHERE drill_id = ANY($1::text[]) ORDER BY drill_id, replica_id LIMIT 1000;
