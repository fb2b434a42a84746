-- Golden canaries: what healthy replicas draw for fixed inputs, rounds that were played, and requests for them. Owner: quality.

CREATE TABLE quality_baselines (               -- from which revision on a golden holds
    model_id    text NOT NULL,
    revision_id text NOT NULL,
    revision_at timestamptz NOT NULL,          -- when the revision was made
    since       timestamptz NOT NULL,
    approved_by text NOT NULL DEFAULT '',      -- empty: the first that was deployed
    reason      text NOT NULL DEFAULT '',
    PRIMARY KEY (model_id, revision_id)
);

CREATE TABLE quality_golden_looks (            -- looks that goldens are learned of; settled: those that they consist of
    look_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_id    text NOT NULL,
    revision_id text NOT NULL,                 -- the baseline
    canary      text NOT NULL,                 -- name@digest of the input
    environment text NOT NULL,
    replica_id  text NOT NULL,
    look        jsonb NOT NULL,                -- quality/canary.py Look
    picture_key text NOT NULL,                 -- object store; empty: no picture
    settled     boolean NOT NULL DEFAULT false,
    taught_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX quality_golden_looks_of ON quality_golden_looks (model_id, revision_id);

CREATE TABLE quality_canary_rounds (
    round_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_id       text NOT NULL,
    revision_id    text NOT NULL,
    replica_id     text NOT NULL,
    worker_id      text NOT NULL,
    cause          text NOT NULL,
    began_at       timestamptz NOT NULL,
    device_seconds double precision NOT NULL,
    ended          text NOT NULL,
    words          text NOT NULL,
    canaries       jsonb NOT NULL              -- quality/canary_store.py PlayedCanary, a list
);
CREATE INDEX quality_canary_rounds_of ON quality_canary_rounds (model_id, round_id DESC);
CREATE INDEX quality_canary_rounds_time ON quality_canary_rounds (began_at);

CREATE TABLE quality_canary_asks (
    ask_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_id    text NOT NULL,
    revision_id text NOT NULL,                 -- empty: each
    worker_id   text NOT NULL,                 -- empty: every one that serves it
    cause       text NOT NULL,
    asked_at    timestamptz NOT NULL,
    reason      text NOT NULL,
    answered_at timestamptz,
    passed      boolean,
    words       text NOT NULL DEFAULT ''
);
CREATE INDEX quality_canary_asks_time ON quality_canary_asks (asked_at);
