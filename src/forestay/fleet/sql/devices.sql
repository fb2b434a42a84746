-- name: keep
-- Replaces what is known of the devices of worker $1 ($2: a JSON array); of a worker that the fleet does not know, nothing.
WITH told AS (
    SELECT value->'reading'->'device'->>'uuid' AS uuid, value AS state FROM jsonb_array_elements($2::text::jsonb)
), gone AS (
    DELETE FROM worker_devices WHERE worker_id = $1 AND uuid NOT IN (SELECT uuid FROM told)
)
INSERT INTO worker_devices (worker_id, uuid, state)
SELECT worker_id, told.uuid, told.state FROM told JOIN workers ON worker_id = $1
ON CONFLICT (worker_id, uuid) DO UPDATE SET state = excluded.state;

-- name: devices
-- Reads every device of every worker.
SELECT state::text AS state FROM worker_devices
ORDER BY worker_id, (state->'reading'->'device'->>'index')::int LIMIT $1;
