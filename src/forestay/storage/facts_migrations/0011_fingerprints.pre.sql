-- Fingerprints: what an output was made with, as a digest in its fact, and once in words.

ALTER TABLE output_facts ADD COLUMN fingerprint text NOT NULL DEFAULT '';  -- empty: no pipeline was watched

CREATE TABLE output_fingerprints (
    model_id    text NOT NULL,
    revision_id text NOT NULL,
    fingerprint text NOT NULL,
    described   jsonb NOT NULL,                -- quality/fingerprints.py
    worker_id   text NOT NULL,                 -- that told of it first
    first_at    timestamptz NOT NULL,
    last_at     timestamptz NOT NULL,          -- told of again, at the latest
    PRIMARY KEY (model_id, revision_id, fingerprint)
);
