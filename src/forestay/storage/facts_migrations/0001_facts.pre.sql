-- Facts: append-only, partitioned by day, in a database of their own if FORESTAY_FACTS_URL says so.
-- The fact's key makes shipping from the outbox exactly-once.

CREATE TABLE request_facts (
    finished_at       timestamptz NOT NULL,
    request_id        uuid NOT NULL,
    lane              text NOT NULL,           -- queue | direct | stream | realtime
    tenant_id         text NOT NULL,
    key_id            text NOT NULL,
    model_id          text NOT NULL,
    endpoint          text NOT NULL,
    revision_id       text,
    replica_id        text,
    attempts          int NOT NULL,
    state             text NOT NULL,
    outcome           text NOT NULL,           -- closed vocabulary: queue/model.py Outcome
    status_code       int NOT NULL,
    error_type        text,
    submitted_at      timestamptz NOT NULL,
    started_at        timestamptz,
    device_seconds    double precision NOT NULL,
    work              jsonb NOT NULL,
    PRIMARY KEY (finished_at, request_id)
) PARTITION BY RANGE (finished_at);
CREATE TABLE request_facts_default PARTITION OF request_facts DEFAULT;

CREATE TABLE attempt_facts (
    finished_at       timestamptz NOT NULL,
    request_id        uuid NOT NULL,
    attempt           int NOT NULL,
    tenant_id         text NOT NULL,
    model_id          text NOT NULL,
    endpoint          text NOT NULL,
    revision_id       text,
    replica_id        text,
    worker_id         text,
    outcome           text NOT NULL,
    submitted_at      timestamptz NOT NULL,
    leased_at         timestamptz,
    started_at        timestamptz,
    device_seconds    double precision NOT NULL,
    work              jsonb NOT NULL,
    PRIMARY KEY (finished_at, request_id, attempt)
) PARTITION BY RANGE (finished_at);
CREATE TABLE attempt_facts_default PARTITION OF attempt_facts DEFAULT;
