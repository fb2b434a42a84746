-- name: version
-- Reads the number that every change bumps.
SELECT version FROM fleet_version;

-- name: lock
-- Makes those who change the fleet take turns until their transactions end.
SELECT version FROM fleet_version FOR UPDATE;

-- name: bump
-- Notes a change.
UPDATE fleet_version SET version = version + 1;

-- name: load
-- Reads the whole fleet in one statement, hence one snapshot; $1 names the revisions already in memory (they never change).
SELECT
    (SELECT version FROM fleet_version) AS version,
    statement_timestamp() AS now,
    (SELECT coalesce(json_agg(json_build_object(
        'model_id', model_id, 'tenant_id', tenant_id, 'visibility', visibility, 'spec', spec)), '[]')::text
     FROM models) AS models,
    ARRAY(SELECT revision_id FROM revisions) AS revision_ids,
    (SELECT coalesce(json_agg(json_build_object(
        'revision_id', revision_id, 'model_id', model_id, 'digest', digest, 'spec', spec,
        'bundle_key', bundle_key, 'openapi', openapi, 'created_at', created_at)), '[]')::text
     FROM revisions WHERE revision_id <> ALL ($1::text[])) AS revisions,
    (SELECT coalesce(json_agg(json_build_object(
        'model_id', model_id, 'revision_id', revision_id, 'bucket_from', bucket_from, 'bucket_to', bucket_to)
        ORDER BY model_id, bucket_from), '[]')::text
     FROM routes) AS routes,
    (SELECT coalesce(json_agg(json_build_object(
        'worker_id', worker_id, 'revision_id', revision_id, 'replicas', replicas, 'reason', reason,
        'ending', ending) ORDER BY worker_id, revision_id), '[]')::text
     FROM placements) AS placements,
    (SELECT coalesce(json_object_agg(model_id, json_build_object(
        'model_id', model_id, 'revision_id', revision_id, 'since', since, 'until', until, 'given_up', given_up,
        'held', held)),
        '{}')::text
     FROM pending_routes) AS pending,
    (SELECT coalesce(json_agg(to_json(workers)), '[]')::text FROM workers) AS workers,
    (SELECT coalesce(json_agg(json_build_object(
        'replica_id', replica_id, 'worker_id', replicas.worker_id, 'revision_id', revision_id, 'model_id', model_id,
        'state', replicas.state, 'slots', slots, 'devices', replicas.devices, 'direct_url', direct_url, 'hints', hints,
        'detail', detail, 'failures', failures, 'started_at', replicas.started_at, 'ready_at', ready_at,
        'last_used_at', last_used_at, 'seen_at', greatest(replicas.seen_at, workers.seen_at))), '[]')::text
     FROM replicas JOIN workers USING (worker_id)) AS replicas,
    (SELECT coalesce(json_object_agg(model_id, wanted_at), '{}')::text FROM demand) AS demand,
    (SELECT coalesce(json_agg(json_build_object(
        'standing_id', standing_id, 'subject', subject, 'kind', kind, 'code', code, 'rule', rule, 'reason', reason,
        'since', since, 'expires_at', expires_at, 'factor', factor, 'freeze_results', freeze_results,
        'origin', origin)), '[]')::text
     FROM standings WHERE ended_at IS NULL AND expires_at > statement_timestamp()) AS standings,
    (SELECT coalesce(json_object_agg(subject, pardon_until), '{}')::text
     FROM (SELECT subject, max(pardon_until) AS pardon_until FROM standings
           WHERE pardon_until > statement_timestamp() GROUP BY subject) AS pardoned) AS pardons;

-- name: heartbeat
-- Notes that an unchanged worker lives; no row comes back when it was retired meanwhile.
UPDATE workers SET seen_at = now() WHERE worker_id = $1 RETURNING worker_id;

-- name: upsert_worker
-- Writes what a worker says of itself.
INSERT INTO workers (worker_id, pool, address, devices, memory_mb, state, started_at, seen_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, now())
ON CONFLICT (worker_id) DO UPDATE SET
    pool = excluded.pool, address = excluded.address, devices = excluded.devices, memory_mb = excluded.memory_mb,
    state = excluded.state, started_at = excluded.started_at, seen_at = excluded.seen_at;

-- name: delete_other_replicas
-- Forgets the worker's replicas that it no longer names.
DELETE FROM replicas WHERE worker_id = $1 AND replica_id <> ALL ($2::text[]);

-- name: upsert_replicas
-- Writes what a worker says of its replicas ($1: a JSON array); a later use noted by `touch` stays.
INSERT INTO replicas (replica_id, worker_id, revision_id, model_id, state, slots, devices, direct_url, hints, detail,
                      failures, started_at, ready_at, last_used_at, seen_at)
SELECT item.replica_id, item.worker_id, item.revision_id, item.model_id, item.state, item.slots, item.devices,
       item.direct_url, item.hints, item.detail, item.failures, item.started_at, item.ready_at, item.last_used_at, now()
FROM jsonb_to_recordset($1::text::jsonb) AS item (
    replica_id text, worker_id text, revision_id text, model_id text, state text, slots int, devices int,
    direct_url text, hints text[], detail text, failures int, started_at timestamptz, ready_at timestamptz,
    last_used_at timestamptz)
ON CONFLICT (replica_id) DO UPDATE SET
    worker_id = excluded.worker_id, revision_id = excluded.revision_id, model_id = excluded.model_id,
    state = excluded.state, slots = excluded.slots, devices = excluded.devices, direct_url = excluded.direct_url,
    hints = excluded.hints, detail = excluded.detail, failures = excluded.failures, started_at = excluded.started_at,
    ready_at = excluded.ready_at, last_used_at = greatest(replicas.last_used_at, excluded.last_used_at),
    seen_at = excluded.seen_at;

-- name: delete_drained_placements
-- Forgets placements that wanted nothing and have got it.
DELETE FROM placements WHERE worker_id = $1 AND replicas = 0
    AND NOT EXISTS (SELECT FROM replicas WHERE replicas.worker_id = placements.worker_id
                    AND replicas.revision_id = placements.revision_id);

-- name: forget_served_demand
-- Forgets the wishes of direct calls for models that now have a ready replica: an old wish must not load them again.
DELETE FROM demand WHERE model_id IN (SELECT model_id FROM replicas WHERE worker_id = $1 AND state = 'ready');

-- name: plan_route
-- Notes which revision takes a model's traffic once a replica of it is ready, instead of what was planned before.
INSERT INTO pending_routes (model_id, revision_id, since, until, held)
VALUES ($1, $2, now(), now() + make_interval(secs => $3), $4)
ON CONFLICT (model_id) DO UPDATE SET revision_id = excluded.revision_id, since = excluded.since, until = excluded.until,
    given_up = '', held = excluded.held;

-- name: drop_plan
-- Forgets what was planned for a model.
DELETE FROM pending_routes WHERE model_id = $1;

-- name: raise_step
-- Notes the last recorded step of a model's rollout.
INSERT INTO route_steps (model_id, rollout_id, version) VALUES ($1, $2, $3)
ON CONFLICT (model_id) DO UPDATE SET rollout_id = excluded.rollout_id, version = excluded.version;

-- name: steps
-- Reads the last recorded steps of rollouts, and lets none be recorded until this transaction ends.
SELECT model_id, rollout_id, version FROM route_steps WHERE model_id = ANY ($1::text[]) ORDER BY model_id FOR UPDATE;

-- name: give_up_plan
-- Notes why a planned route is given up; it stays to be seen until the next deploy.
UPDATE pending_routes SET given_up = $2 WHERE model_id = $1;

-- name: touch
-- Notes that replicas were just used, at most twice a second each, and never waits for another writer of the same row.
UPDATE replicas SET last_used_at = now()
FROM (
    SELECT replica_id FROM replicas
    WHERE replica_id = ANY ($1::text[]) AND (last_used_at IS NULL OR last_used_at < now() - interval '0.5 s')
    ORDER BY replica_id FOR UPDATE SKIP LOCKED
) AS stale
WHERE replicas.replica_id = stale.replica_id;

-- name: note_use
-- Notes when a worker's replicas were used last, as it says itself.
UPDATE replicas SET last_used_at = greatest(replicas.last_used_at, used.at)
FROM unnest($1::text[], $2::timestamptz[]) AS used (replica_id, at)
WHERE replicas.replica_id = used.replica_id;

-- name: want
-- Notes that a direct call found no live replica of a known model, at most once a second each.
INSERT INTO demand (model_id, wanted_at) SELECT model_id, now() FROM models WHERE model_id = $1
ON CONFLICT (model_id) DO UPDATE SET wanted_at = excluded.wanted_at
    WHERE demand.wanted_at < excluded.wanted_at - interval '1 s';

-- name: retire_replicas
-- Forgets a worker's replicas.
DELETE FROM replicas WHERE worker_id = $1;

-- name: retire_placements
-- Forgets a worker's placements.
DELETE FROM placements WHERE worker_id = $1;

-- name: retire_worker
-- Forgets a worker; no row comes back when it was not known.
DELETE FROM workers WHERE worker_id = $1 RETURNING worker_id;

-- name: brakes
-- Reads the freeze switch and the caps on automation.
SELECT frozen, coalesce(frozen_by, '') AS frozen_by, coalesce(frozen_why, '') AS frozen_why, removal_cap, window_seconds,
       standing_cap
FROM brakes;

-- name: modes
-- Reads how far each loop may go.
SELECT loop, model_id, mode FROM loop_modes;

-- name: set_mode
-- Says how far a loop may go.
INSERT INTO loop_modes (loop, model_id, mode) VALUES ($1, $2, $3)
ON CONFLICT (loop, model_id) DO UPDATE SET mode = excluded.mode;

-- name: upsert_model
-- Adds a model or gives it the newest spec.
INSERT INTO models (model_id, spec, visibility, tenant_id) VALUES ($1, $2::text::jsonb, $3, $4)
ON CONFLICT (model_id) DO UPDATE SET spec = excluded.spec, visibility = excluded.visibility, updated_at = now();

-- name: insert_revision
-- Adds a revision; one that exists never changes.
INSERT INTO revisions (revision_id, model_id, digest, spec, bundle_key, openapi, created_at, created_by)
VALUES ($1, $2, $3, $4::text::jsonb, $5, $6::text::jsonb, $7, $8)
ON CONFLICT (revision_id) DO NOTHING;

-- name: delete_routes
-- Takes a model's routes away, within the transaction that writes new ones.
DELETE FROM routes WHERE model_id = $1;

-- name: insert_route
-- Gives a range of buckets to a revision.
INSERT INTO routes (model_id, revision_id, bucket_from, bucket_to) VALUES ($1, $2, $3, $4);

-- name: place
-- Wants a number of replicas of a revision on a worker, and an end of those named in $5.
INSERT INTO placements (worker_id, revision_id, replicas, reason, ending) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (worker_id, revision_id) DO UPDATE SET
    replicas = excluded.replicas, reason = excluded.reason, ending = excluded.ending, since = now();

-- name: freeze
-- Turns the freeze switch.
UPDATE brakes SET frozen = $1, frozen_by = $2, frozen_why = $3;
