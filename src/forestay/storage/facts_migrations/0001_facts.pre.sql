-- Facts: append-only, partitioned by day, in a database of their own if FORESTAY_FACTS_URL says so.
-- The fact's key makes shipping from the outbox exactly-once.

-- Partitions (the same two functions as in the main schema: the databases may be one) -----------
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
