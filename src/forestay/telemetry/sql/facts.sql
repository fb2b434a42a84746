-- name: outbox
-- Locks the oldest batches of facts that wait to be shipped.
SELECT batch_id, facts::text AS facts FROM fact_outbox ORDER BY batch_id LIMIT $1 FOR UPDATE SKIP LOCKED;

-- name: shipped
-- Removes batches that are in the facts tables.
DELETE FROM fact_outbox WHERE batch_id = ANY ($1::bigint[]);

-- name: take_turn
-- Lets one writer at a time go on, so that positions become visible in their order and a reader's cursor skips none.
SELECT pg_advisory_xact_lock(4660003);

-- name: keep_requests
-- Appends request facts; one that is there already (shipped before a crash) is left as it is.
INSERT INTO request_facts (
    finished_at, request_id, lane, tenant_id, key_id, model_id, endpoint, revision_id, replica_id, attempts, state,
    outcome, status_code, error_type, submitted_at, started_at, device_seconds, work, tags, source, traffic, cause,
    worker_id, device, queued_at, leased_at, first_byte_at, answered_at, checked_at, traceparent
)
SELECT finished_at, request_id, lane, tenant_id, key_id, model_id, endpoint, revision_id, replica_id, attempts, state,
       outcome, status_code, error_type, submitted_at, started_at, device_seconds, work, tags, source, traffic, cause,
       worker_id, device, queued_at, leased_at, first_byte_at, answered_at, checked_at, traceparent
FROM jsonb_to_recordset($1::text::jsonb) AS f (
    finished_at timestamptz, request_id uuid, lane text, tenant_id text, key_id text, model_id text, endpoint text,
    revision_id text, replica_id text, attempts int, state text, outcome text, status_code int, error_type text,
    submitted_at timestamptz, started_at timestamptz, device_seconds float8, work jsonb, tags jsonb, source text,
    traffic text, cause text, worker_id text, device text, queued_at timestamptz, leased_at timestamptz,
    first_byte_at timestamptz, answered_at timestamptz, checked_at timestamptz, traceparent text
)
ON CONFLICT DO NOTHING;

-- name: keep_attempts
-- Appends attempt facts; one that is there already is left as it is.
INSERT INTO attempt_facts (
    finished_at, request_id, attempt, tenant_id, model_id, endpoint, revision_id, replica_id, worker_id, outcome,
    submitted_at, leased_at, started_at, device_seconds, work, traffic, cause, device, queued_at, checked_at
)
SELECT finished_at, request_id, attempt, tenant_id, model_id, endpoint, revision_id, replica_id, worker_id, outcome,
       submitted_at, leased_at, started_at, device_seconds, work, traffic, cause, device, queued_at, checked_at
FROM jsonb_to_recordset($1::text::jsonb) AS f (
    finished_at timestamptz, request_id uuid, attempt int, tenant_id text, model_id text, endpoint text,
    revision_id text, replica_id text, worker_id text, outcome text, submitted_at timestamptz, leased_at timestamptz,
    started_at timestamptz, device_seconds float8, work jsonb, traffic text, cause text, device text,
    queued_at timestamptz, checked_at timestamptz
)
ON CONFLICT DO NOTHING;

-- name: keep_deliveries
-- Appends what became of webhooks; one that is there already is left as it is.
INSERT INTO delivery_facts (
    finished_at, request_id, tenant_id, model_id, endpoint, revision_id, outcome, tries, status_code,
    request_finished_at, traffic
)
SELECT finished_at, request_id, tenant_id, model_id, endpoint, revision_id, outcome, tries, status_code,
       request_finished_at, traffic
FROM jsonb_to_recordset($1::text::jsonb) AS f (
    finished_at timestamptz, request_id uuid, tenant_id text, model_id text, endpoint text, revision_id text,
    outcome text, tries int, status_code int, request_finished_at timestamptz, traffic text
)
ON CONFLICT DO NOTHING;

-- name: keep_polls
-- Appends minutes of counted polls; one that is there already is left as it is.
INSERT INTO poll_facts (finished_at, count_id, gateway_id, good, bad)
SELECT finished_at, count_id, gateway_id, good, bad
FROM jsonb_to_recordset($1::text::jsonb) AS f (
    finished_at timestamptz, count_id uuid, gateway_id text, good bigint, bad bigint
)
ON CONFLICT DO NOTHING;

-- name: make_partition
-- Makes one day's partition of a facts table unless it is there.
SELECT forestay_make_partition($1, $2, 'finished_at', $3, $4);

-- name: drop_partitions
-- Drops the partitions of a facts table whose day is before $2 (yyyymmdd).
SELECT forestay_drop_partitions($1, $2);
