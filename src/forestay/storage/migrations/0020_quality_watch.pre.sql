-- What the quality loop remembers between runs and restarts, and what it holds back from use. Owner: quality.

CREATE TABLE quality_watch (                   -- one snapshot in parts, written in one transaction
    part     text PRIMARY KEY,                 -- meta | reference/... | stream/...
    data     bytea NOT NULL,                   -- msgpack, deflated
    saved_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE quality_holds (                   -- replicas that were drained and have not passed a self-test since
    worker_id   text NOT NULL,
    revision_id text NOT NULL,
    model_id    text NOT NULL,
    replica_id  text NOT NULL,                 -- the one that was found bad
    finding_id  text NOT NULL,
    reason      text NOT NULL,
    held_at     timestamptz NOT NULL,
    lifted_at   timestamptz,
    lifted_for  text NOT NULL DEFAULT '',
    PRIMARY KEY (worker_id, revision_id, held_at)
);
CREATE INDEX quality_holds_open ON quality_holds (worker_id, revision_id) WHERE lifted_at IS NULL;
