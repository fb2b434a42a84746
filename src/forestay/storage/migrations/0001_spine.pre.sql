-- The spine: tenants and keys, the fleet's state, the queue, finished requests, logs, webhooks, media, audit.
-- Kept narrow and few in the hot tables; done rows move out to tables partitioned by request id (UUIDv7 = time).

-- Partitions -----------------------------------------------------------------------------------------------------
-- Makes the partition `parent_suffix` for [low, high); rows that wait in the default partition move into it.
CREATE OR REPLACE FUNCTION forestay_make_partition(parent text, suffix text, key text, low text, high text)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    name text := parent || '_' || suffix;
BEGIN
    IF to_regclass(format('%I', name)) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name, parent);
    EXECUTE format(
        'WITH moved AS (DELETE FROM %I WHERE %I >= %L AND %I < %L RETURNING *) INSERT INTO %I SELECT * FROM moved',
        parent || '_default', key, low, key, high, name
    );
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name, low, high);
    RETURN true;
END $$;

-- Drops the partitions of `parent` whose suffix (a date, yyyymmdd) is smaller than `before`; returns their names.
CREATE OR REPLACE FUNCTION forestay_drop_partitions(parent text, before text)
RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = parent::regclass AND c.relname ~ ('^' || parent || '_[0-9]{8}$')
          AND right(c.relname, 8) < before
    LOOP
        EXECUTE format('DROP TABLE %I', name);
        RETURN NEXT name;
    END LOOP;
END $$;

CREATE TABLE tenants (
    tenant_id   text PRIMARY KEY,
    name        text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE keys (
    key_id       text PRIMARY KEY,
    tenant_id    text NOT NULL REFERENCES tenants,
    name         text NOT NULL DEFAULT '',
    secret_hash  bytea NOT NULL,               -- sha-256 of the 256-bit random secret
    scopes       text[] NOT NULL,              -- API, ADMIN
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
);
CREATE INDEX keys_revoked ON keys (revoked_at) WHERE revoked_at IS NOT NULL;

-- Fleet: desired state -------------------------------------------------------------------------------------------
CREATE TABLE models (
    model_id    text PRIMARY KEY,              -- owner/alias
    spec        jsonb NOT NULL,                -- of the newest revision
    visibility  text NOT NULL DEFAULT 'shared' CHECK (visibility IN ('private', 'shared', 'public')),
    tenant_id   text NOT NULL REFERENCES tenants,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE revisions (
    revision_id text PRIMARY KEY,              -- alias-<12 hex of digest>
    model_id    text NOT NULL REFERENCES models,
    digest      text NOT NULL,                 -- sha-256 over code, weights and settings
    spec        jsonb NOT NULL,
    bundle_key  text,                          -- object key of the code and weights; null for hosts without code
    openapi     jsonb,                         -- what the model says of itself; null when it says nothing
    created_at  timestamptz NOT NULL DEFAULT now(),
    created_by  text NOT NULL
);
CREATE INDEX revisions_model ON revisions (model_id, created_at);

CREATE TABLE routes (                          -- which revision serves which buckets [bucket_from, bucket_to)
    model_id    text NOT NULL REFERENCES models,
    bucket_from int NOT NULL CHECK (bucket_from >= 0),
    bucket_to   int NOT NULL CHECK (bucket_to <= 10000 AND bucket_to > bucket_from),
    revision_id text NOT NULL REFERENCES revisions,
    PRIMARY KEY (model_id, bucket_from)
);

CREATE TABLE placements (                      -- which revisions a worker shall hold
    worker_id   text NOT NULL,
    revision_id text NOT NULL REFERENCES revisions,
    replicas    int NOT NULL DEFAULT 1 CHECK (replicas >= 0),  -- 0: drain, then unload
    reason      text NOT NULL,
    since       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (worker_id, revision_id)
);

CREATE TABLE loop_modes (                      -- observe | advise | act, per loop and model ('' = every model)
    loop        text NOT NULL,
    model_id    text NOT NULL DEFAULT '',
    mode        text NOT NULL CHECK (mode IN ('observe', 'advise', 'act')),
    PRIMARY KEY (loop, model_id)
);

CREATE TABLE brakes (
    only_row     boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    frozen       boolean NOT NULL DEFAULT false,
    frozen_by    text,
    frozen_why   text,
    removal_cap  float NOT NULL DEFAULT 0.5,   -- share of a pool's devices that automation may take out per window
    window_seconds float NOT NULL DEFAULT 600
);
INSERT INTO brakes DEFAULT VALUES;

CREATE TABLE fleet_version (                   -- bumped by every change of desired or observed state
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version  bigint NOT NULL DEFAULT 1
);
INSERT INTO fleet_version DEFAULT VALUES;

-- Fleet: observed state ------------------------------------------------------------------------------------------
CREATE TABLE workers (
    worker_id   text PRIMARY KEY,
    pool        text NOT NULL,
    address     text NOT NULL,                 -- http://host:port of its direct lane
    devices     int NOT NULL,
    memory_mb   int NOT NULL,
    state       text NOT NULL,                 -- ready | draining | stopped
    started_at  timestamptz NOT NULL,
    seen_at     timestamptz NOT NULL
);

CREATE TABLE replicas (
    replica_id   text PRIMARY KEY,
    worker_id    text NOT NULL,
    revision_id  text NOT NULL REFERENCES revisions,
    model_id     text NOT NULL,
    state        text NOT NULL,                -- setup | ready | draining | backoff | stopped
    slots        int NOT NULL,
    devices      int NOT NULL,
    direct_url   text,                         -- set when a gateway may speak to the model's server itself
    hints        text[] NOT NULL DEFAULT '{}',
    detail       text NOT NULL DEFAULT '',     -- why it is in this state
    failures     int NOT NULL DEFAULT 0,       -- consecutive failed starts
    started_at   timestamptz NOT NULL,
    ready_at     timestamptz,
    last_used_at timestamptz,
    seen_at      timestamptz NOT NULL
);
CREATE INDEX replicas_worker ON replicas (worker_id);
CREATE INDEX replicas_model ON replicas (model_id);

CREATE TABLE demand (                          -- direct calls that found no live replica
    model_id    text PRIMARY KEY,
    wanted_at   timestamptz NOT NULL
);

-- Queue: hot -----------------------------------------------------------------------------------------------------
CREATE TABLE requests (
    request_id       uuid PRIMARY KEY,
    tenant_id        text NOT NULL,
    key_id           text NOT NULL,
    model_id         text NOT NULL,
    endpoint         text NOT NULL,
    state            text NOT NULL DEFAULT 'queued',
    bucket           smallint NOT NULL,
    low_priority     boolean NOT NULL DEFAULT false,
    alone            boolean NOT NULL DEFAULT false,   -- after two lost leases it runs alone on its replica
    attempt          smallint NOT NULL DEFAULT 0,
    lost_leases      smallint NOT NULL DEFAULT 0,
    order_at         timestamptz NOT NULL,             -- virtual submit time: low = submit + starvation bound
    available_at     timestamptz NOT NULL,
    submitted_at     timestamptz NOT NULL,
    start_deadline   timestamptz,
    total_deadline   timestamptz,
    leased_at        timestamptz,
    started_at       timestamptz,
    lease_expires_at timestamptz,
    worker_id        text,
    replica_id       text,
    revision_id      text,
    hint             text,
    crashed_replicas text[] NOT NULL DEFAULT '{}',
    retries_used     jsonb NOT NULL DEFAULT '{}',
    webhook          boolean NOT NULL DEFAULT false
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200,
        autovacuum_analyze_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0);
-- Predicates name worker_id alone, so that a step between held states and a renewal touch no index (HOT updates).
CREATE INDEX requests_queue ON requests (model_id, order_at) WHERE worker_id IS NULL;
CREATE INDEX requests_alone ON requests (model_id, order_at) WHERE worker_id IS NULL AND alone;
CREATE INDEX requests_held ON requests (worker_id) WHERE worker_id IS NOT NULL;
CREATE INDEX requests_start_deadline ON requests (start_deadline) WHERE start_deadline IS NOT NULL;
CREATE INDEX requests_total_deadline ON requests (total_deadline) WHERE total_deadline IS NOT NULL;

CREATE TABLE request_inputs (                  -- written once at submit, read at claim, deleted at finish
    request_id  uuid PRIMARY KEY,
    options     text NOT NULL,                 -- JSON, read whole by the worker, never by SQL
    body        bytea,                         -- null when it lies in the object store
    body_key    text,
    webhook_url text,
    store_io    boolean NOT NULL DEFAULT true  -- X-Fal-Store-IO
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE idempotency_keys (
    key_id          text NOT NULL,
    idempotency_key text NOT NULL,
    fingerprint     bytea NOT NULL,
    request_id      uuid NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (key_id, idempotency_key)
);

CREATE TABLE undelivered_submits (             -- answers that never reached their caller: adopted once by the retry
    key_id      text NOT NULL,
    fingerprint bytea NOT NULL,
    request_id  uuid NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (key_id, fingerprint, request_id)
);

-- Queue: done, partitioned by request id, that is by time of submit ------------------------------------------------
CREATE TABLE finished_requests (
    request_id        uuid PRIMARY KEY,
    tenant_id         text NOT NULL,
    key_id            text NOT NULL,
    model_id          text NOT NULL,
    endpoint          text NOT NULL,
    state             text NOT NULL,
    attempt           smallint NOT NULL,
    revision_id       text,
    replica_id        text,
    submitted_at      timestamptz NOT NULL,
    started_at        timestamptz,
    finished_at       timestamptz NOT NULL,
    inference_seconds double precision,
    status_code       smallint NOT NULL,
    headers           jsonb NOT NULL,
    body              bytea,
    body_key          text,
    error             text,
    error_type        text,
    input             bytea,                   -- kept while X-Fal-Store-IO allows
    input_key         text,
    ephemeral         boolean NOT NULL DEFAULT false  -- X-Fal-Store-IO: 0: the body goes after an hour
) PARTITION BY RANGE (request_id);
CREATE INDEX finished_requests_ephemeral ON finished_requests (finished_at) WHERE ephemeral;
CREATE TABLE finished_requests_default PARTITION OF finished_requests DEFAULT;

CREATE TABLE request_logs (
    position    bigint GENERATED ALWAYS AS IDENTITY,
    request_id  uuid NOT NULL,
    attempt     smallint NOT NULL,
    sequence    int NOT NULL,
    at          timestamptz NOT NULL,
    level       text NOT NULL,
    source      text NOT NULL,
    message     text NOT NULL,
    PRIMARY KEY (request_id, position)
) PARTITION BY RANGE (request_id);
CREATE TABLE request_logs_default PARTITION OF request_logs DEFAULT;

CREATE TABLE fact_outbox (                     -- facts travel to the facts database in batches, exactly once by their keys
    batch_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    facts     json NOT NULL                    -- an array of objects, each with its kind: request | attempt
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);

-- Delivery -------------------------------------------------------------------------------------------------------
CREATE TABLE webhooks (
    request_id   uuid PRIMARY KEY,
    tenant_id    text NOT NULL,
    url          text NOT NULL,
    state        text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'dead')),
    tries        smallint NOT NULL DEFAULT 0,
    next_try_at  timestamptz NOT NULL DEFAULT now(),
    last_status  smallint,
    last_error   text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    delivered_at timestamptz
);
CREATE INDEX webhooks_due ON webhooks (next_try_at) WHERE state = 'pending';

-- Media ----------------------------------------------------------------------------------------------------------
CREATE TABLE media (
    media_id     text PRIMARY KEY,             -- unguessable; the object's key and the URL's path carry it
    object_key   text NOT NULL,                -- media/{media_id}/{writer}: writers may race, the row names the winner
    tenant_id    text NOT NULL,
    request_id   uuid,                         -- null for uploads
    attempt      smallint,
    file_name    text NOT NULL,
    content_type text NOT NULL,
    size_bytes   bigint NOT NULL,              -- -1 while its bytes are still on their way
    state        text NOT NULL CHECK (state IN ('quarantine', 'released', 'deleted')),
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz
);
CREATE INDEX media_expiry ON media (expires_at) WHERE state <> 'deleted';
CREATE INDEX media_request ON media (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX media_quarantine ON media (created_at) WHERE state = 'quarantine';

CREATE TABLE multipart_uploads (
    upload_id  text PRIMARY KEY,
    media_id   text NOT NULL,
    tenant_id  text NOT NULL,
    file_name  text NOT NULL,
    content_type text NOT NULL,
    lifetime_seconds int,
    created_at timestamptz NOT NULL DEFAULT now(),
    completed_at timestamptz
);
CREATE INDEX multipart_uploads_age ON multipart_uploads (created_at);
CREATE TABLE multipart_parts (
    upload_id   text NOT NULL REFERENCES multipart_uploads ON DELETE CASCADE,
    part_number int NOT NULL,
    etag        text NOT NULL,                 -- random; uploads/{upload_id}/{part_number}/{etag} is the object's key
    size_bytes  bigint NOT NULL,
    PRIMARY KEY (upload_id, part_number)
);

-- Audit ----------------------------------------------------------------------------------------------------------
CREATE TABLE audit_log (                       -- append-only, hash-chained per writer
    writer    text NOT NULL,
    sequence  bigint NOT NULL,
    at        timestamptz NOT NULL,
    actor     text NOT NULL,                   -- human:<key id> | loop:<name>
    action    text NOT NULL,
    subject   text NOT NULL,
    detail    jsonb NOT NULL,
    reason    text NOT NULL,
    effect    text NOT NULL CHECK (effect IN ('applied', 'advised', 'observed', 'refused')),
    previous  bytea NOT NULL,
    hash      bytea NOT NULL,
    PRIMARY KEY (writer, sequence)
);
CREATE INDEX audit_log_at ON audit_log (at);

CREATE TABLE audit_heads (                     -- the newest row of each chain: locked to append, compared to find a cut tail
    writer    text PRIMARY KEY,
    sequence  bigint NOT NULL DEFAULT 0,
    hash      bytea NOT NULL DEFAULT '\x'
);

CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_log is append-only: % refused', TG_OP;
END $$;
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();

CREATE TABLE loop_leaders (                    -- one controller runs a loop at a time
    loop       text PRIMARY KEY,
    holder     text NOT NULL,
    term       bigint NOT NULL DEFAULT 1,
    expires_at timestamptz NOT NULL
);
