-- Outputs: one row for each file of an answer whose numbers were taken. Numbers and keyed digests; never content, and
-- nothing that content can be made from without the deployment's key.

CREATE SEQUENCE output_facts_position;

CREATE TABLE output_facts (
    at                timestamptz NOT NULL,
    request_id        uuid NOT NULL,
    attempt           int NOT NULL,            -- 0 on the direct lane
    place             int NOT NULL,            -- of the file in its answer
    position          bigint NOT NULL DEFAULT nextval('output_facts_position'),  -- in order of commit
    tenant_id         text NOT NULL,
    model_id          text NOT NULL,
    endpoint          text NOT NULL,
    revision_id       text NOT NULL,
    replica_id        text NOT NULL,
    worker_id         text NOT NULL,
    device            text NOT NULL,
    kind              text NOT NULL,           -- image | video | audio
    parameters        text NOT NULL,           -- size, steps and adapters in short: "512x512 20 steps"
    cluster           smallint NOT NULL,       -- of the prompt: 0..31 of a keyed hash, -1 without one
    failed            text NOT NULL,           -- the check by which it failed; empty: whole
    features          real[] NOT NULL,         -- as media/measures names them; empty where the file does not open
    likeness          bigint NOT NULL,         -- keyed digest of the picture's perceptual hash; 0 where there is none
    content           bigint NOT NULL,         -- keyed digest of the bytes
    prompt            bigint NOT NULL,         -- keyed digest of the words that were asked for; 0 without any
    seed              bigint NOT NULL,         -- keyed digest of the seed that was asked for; 0 without one
    PRIMARY KEY (at, request_id, attempt, place)
) PARTITION BY RANGE (at);
CREATE TABLE output_facts_default PARTITION OF output_facts DEFAULT;
CREATE INDEX output_facts_position_order ON output_facts (position);
CREATE INDEX output_facts_revision ON output_facts (revision_id, position);
