-- Verdict records: one row for each judgement of content. Scores, thresholds, digests and timings; never content.

CREATE SEQUENCE verdict_facts_position;

CREATE TABLE verdict_facts (
    at                timestamptz NOT NULL,
    verdict_id        uuid NOT NULL,
    position          bigint NOT NULL DEFAULT nextval('verdict_facts_position'),  -- in order of commit
    request_id        uuid NOT NULL,
    attempt           int NOT NULL,            -- 0 for an input and on the direct lane
    point             text NOT NULL,           -- input | output | piece
    tenant_id         text NOT NULL,
    key_id            text NOT NULL,
    model_id          text NOT NULL,
    revision_id       text NOT NULL,
    policy_id         text NOT NULL,
    policy_version    int NOT NULL,
    policy_digest     text NOT NULL,
    shadow            boolean NOT NULL,        -- judged by a candidate policy, without effect
    verdict           text NOT NULL,           -- allow | flag | block | inconclusive
    action            text NOT NULL,
    category          text,
    place             text NOT NULL,           -- the field that led to it
    reason            text NOT NULL,
    checks            jsonb NOT NULL,          -- detector, digest, where, modality, category, score, threshold, ...
    judged            text[] NOT NULL,         -- sha256 of each body or file that it is about
    seconds           double precision NOT NULL,
    salt              bytea NOT NULL,          -- goes into the row's digest in the chain
    PRIMARY KEY (at, verdict_id)
) PARTITION BY RANGE (at);
CREATE TABLE verdict_facts_default PARTITION OF verdict_facts DEFAULT;
CREATE INDEX verdict_facts_position_order ON verdict_facts (position);
CREATE INDEX verdict_facts_request ON verdict_facts (request_id);

-- Seals: each closes a run of records with a digest over theirs and over the seal before it. They outlive the records.
CREATE TABLE verdict_seals (
    sequence          bigint PRIMARY KEY,
    sealed_at         timestamptz NOT NULL,
    first_position    bigint NOT NULL,
    last_position     bigint NOT NULL,
    rows              int NOT NULL,
    root              bytea NOT NULL,          -- sha256 over the digests of its rows, in order
    previous          bytea NOT NULL,          -- the hash of the seal before; empty for the first
    hash              bytea NOT NULL
);
