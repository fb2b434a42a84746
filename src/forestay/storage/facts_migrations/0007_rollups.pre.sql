-- Roll-ups: facts added up by minute. Made anew, whole minutes at a time, whenever facts of a minute are written.

CREATE TABLE rollups (
    minute         timestamptz NOT NULL,       -- in which requests, attempts, notices ended
    model_id       text NOT NULL,
    tenant_id      text NOT NULL,
    endpoint       text NOT NULL,
    revision_id    text NOT NULL,
    lane           text NOT NULL,
    cause          text NOT NULL,              -- empty: nothing went wrong
    traffic        text NOT NULL,              -- caller | probe | canary
    requests       int NOT NULL,
    good           int NOT NULL,
    bad            int NOT NULL,
    excluded       int NOT NULL,
    valid          int NOT NULL,
    invalid        int NOT NULL,
    judged         int NOT NULL,
    unjudged       int NOT NULL,
    delivered      int NOT NULL,
    undelivered    int NOT NULL,
    submits_good   int NOT NULL,
    submits_bad    int NOT NULL,
    guard_good     int NOT NULL,
    guard_bad      int NOT NULL,
    attempts       int NOT NULL,
    device_ms_good bigint NOT NULL,
    device_ms_bad  bigint NOT NULL,
    device_seconds double precision NOT NULL,
    work           jsonb NOT NULL,             -- unit -> amount
    latency        jsonb NOT NULL,             -- stage -> bin -> count: telemetry/histogram.py
    PRIMARY KEY (minute, model_id, tenant_id, endpoint, revision_id, lane, cause, traffic)
) PARTITION BY RANGE (minute);
CREATE TABLE rollups_default PARTITION OF rollups DEFAULT;
CREATE INDEX rollups_model ON rollups (model_id, minute);
CREATE INDEX rollups_tenant ON rollups (tenant_id, minute);

-- Minutes whose facts are not rolled up, or not all of them.
CREATE TABLE rollup_open (minute timestamptz PRIMARY KEY);

-- Minutes that were rolled up; `rolled` grows with every roll, so that readers learn which were opened again.
CREATE SEQUENCE rollup_order;
CREATE TABLE rollup_minutes (
    minute timestamptz PRIMARY KEY,
    rolled bigint NOT NULL DEFAULT nextval('rollup_order')
);
CREATE INDEX rollup_minutes_order ON rollup_minutes (rolled);

-- How far each reader of facts has come.
CREATE TABLE fact_readers (
    reader         text PRIMARY KEY,
    position       bigint NOT NULL DEFAULT 0,
    complete_until timestamptz                 -- everything that ended before is in what this reader makes
);
CREATE INDEX rollup_calls ON call_facts (at) WHERE verb = 'submit';
