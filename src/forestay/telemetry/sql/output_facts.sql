-- name: take_turn
-- Lets one writer at a time go on, so that positions become visible in their order and a reader's cursor skips none.
SELECT pg_advisory_xact_lock(4660005);

-- name: keep
-- Appends facts of outputs; one that is there already (written before an unclear answer) is left as it is.
INSERT INTO output_facts (
    at, request_id, attempt, place, tenant_id, model_id, endpoint, revision_id, replica_id, worker_id, device, kind,
    parameters, cluster, failed, features, likeness, content, prompt, seed
)
SELECT at, request_id, attempt, place, tenant_id, model_id, endpoint, revision_id, replica_id, worker_id, device, kind,
       parameters, cluster, failed, ARRAY(SELECT jsonb_array_elements_text(features)::real), likeness, content, prompt,
       seed
FROM jsonb_to_recordset($1::text::jsonb) AS f (
    at timestamptz, request_id uuid, attempt int, place int, tenant_id text, model_id text, endpoint text,
    revision_id text, replica_id text, worker_id text, device text, kind text, parameters text, cluster smallint,
    failed text, features jsonb, likeness bigint, content bigint, prompt bigint, seed bigint
)
ON CONFLICT DO NOTHING;

-- name: after
-- Reads facts after position $1, at most $3, in order; $2 names the partitions to look at: nothing older is written.
SELECT at, request_id, attempt, place, position, tenant_id, model_id, endpoint, revision_id, replica_id, worker_id,
       device, kind, parameters, cluster, failed, features, likeness, content, prompt, seed
FROM output_facts WHERE position > $1 AND at >= $2 ORDER BY position LIMIT $3;

-- name: of_revision
-- Reads the newest facts of revision $1 and a kind of medium ($2) since $3, at most $4, the oldest first.
SELECT * FROM (
    SELECT at, request_id, attempt, place, position, tenant_id, model_id, endpoint, revision_id, replica_id, worker_id,
           device, kind, parameters, cluster, failed, features, likeness, content, prompt, seed
    FROM output_facts WHERE revision_id = $1 AND kind = $2 AND at >= $3 ORDER BY position DESC LIMIT $4
) newest ORDER BY position;

-- name: make_partition
-- Makes one day's partition unless it is there.
SELECT forestay_make_partition('output_facts', $1, 'at', $2, $3);

-- name: drop_partitions
-- Drops the partitions whose day is before $1 (yyyymmdd).
SELECT forestay_drop_partitions('output_facts', $1);
