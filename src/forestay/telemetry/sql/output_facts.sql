-- name: take_turn
-- Lets one writer at a time go on, so that positions become visible in their order and a reader's cursor skips none.
SELECT pg_advisory_xact_lock(4660005);

-- name: keep
-- Appends facts of outputs; one that is there already (written before an unclear answer) is left as it is.
INSERT INTO output_facts (
    at, request_id, attempt, place, tenant_id, model_id, endpoint, revision_id, replica_id, worker_id, device, kind,
    parameters, cluster, failed, features, likeness, content, prompt, seed, fingerprint
)
SELECT at, request_id, attempt, place, tenant_id, model_id, endpoint, revision_id, replica_id, worker_id, device, kind,
       parameters, cluster, failed, ARRAY(SELECT jsonb_array_elements_text(features)::real), likeness, content, prompt,
       seed, coalesce(fingerprint, '')
FROM jsonb_to_recordset($1::text::jsonb) AS f (
    at timestamptz, request_id uuid, attempt int, place int, tenant_id text, model_id text, endpoint text,
    revision_id text, replica_id text, worker_id text, device text, kind text, parameters text, cluster smallint,
    failed text, features jsonb, likeness bigint, content bigint, prompt bigint, seed bigint, fingerprint text
)
ON CONFLICT DO NOTHING;

-- name: describe
-- Keeps in words what fingerprints ($1: a JSON array of facts) are of.
INSERT INTO output_fingerprints (model_id, revision_id, fingerprint, described, worker_id, first_at, last_at)
SELECT DISTINCT ON (value->>'model_id', value->>'revision_id', value->>'fingerprint')
       value->>'model_id', value->>'revision_id', value->>'fingerprint', (value->>'described')::jsonb,
       value->>'worker_id', (value->>'at')::timestamptz, (value->>'at')::timestamptz
FROM jsonb_array_elements($1::text::jsonb)
ON CONFLICT (model_id, revision_id, fingerprint)
DO UPDATE SET last_at = greatest(output_fingerprints.last_at, EXCLUDED.last_at);

-- name: fingerprints
-- Reads what outputs of model $1 were made with, the newest first, at most $2.
SELECT model_id, revision_id, fingerprint, described::text AS described, worker_id, first_at, last_at
FROM output_fingerprints WHERE model_id = $1 ORDER BY last_at DESC, fingerprint LIMIT $2;

-- name: fingerprints_of
-- Reads what the outputs of request $1 were made with; $2 and $3 name the partitions to look at.
SELECT model_id, revision_id, fingerprint, described::text AS described, outputs.worker_id,
       min(outputs.at) AS first_at, max(outputs.at) AS last_at
FROM output_facts AS outputs JOIN output_fingerprints AS known USING (model_id, revision_id, fingerprint)
WHERE outputs.request_id = $1 AND outputs.at >= $2 AND outputs.at < $3
GROUP BY model_id, revision_id, fingerprint, described, outputs.worker_id ORDER BY first_at;

-- name: forget_fingerprints
-- Removes fingerprints that nobody told of since $1.
DELETE FROM output_fingerprints WHERE last_at < $1;

-- name: after
-- Reads facts after position $1, at most $3, in order; $2 names the partitions to look at: nothing older is written.
SELECT at, request_id, attempt, place, position, tenant_id, model_id, endpoint, revision_id, replica_id, worker_id,
       device, kind, parameters, cluster, failed, features, likeness, content, prompt, seed, fingerprint
FROM output_facts WHERE position > $1 AND at >= $2 ORDER BY position LIMIT $3;

-- name: of_revision
-- Reads the newest facts of revision $1 and a kind of medium ($2) since $3, at most $4, the oldest first.
SELECT * FROM (
    SELECT at, request_id, attempt, place, position, tenant_id, model_id, endpoint, revision_id, replica_id, worker_id,
           device, kind, parameters, cluster, failed, features, likeness, content, prompt, seed, fingerprint
    FROM output_facts WHERE revision_id = $1 AND kind = $2 AND at >= $3 ORDER BY position DESC LIMIT $4
) newest ORDER BY position;

-- name: make_partition
-- Makes one day's partition unless it is there.
SELECT forestay_make_partition('output_facts', $1, 'at', $2, $3);

-- name: drop_partitions
-- Drops the partitions whose day is before $1 (yyyymmdd).
SELECT forestay_drop_partitions('output_facts', $1);
