-- What a request is predicted to cost, and what that is learned from.
-- Adding a column with a constant default rewrites nothing; old code inserts without it.

ALTER TABLE requests ADD COLUMN predicted_seconds double precision NOT NULL DEFAULT 1;  -- device-seconds, never 0

CREATE TABLE cost_models (                     -- one per revision and endpoint, written by the learning loop alone
    model_id    text NOT NULL,
    revision_id text NOT NULL,
    endpoint    text NOT NULL,
    state       jsonb NOT NULL,                -- capacity/predict.py CostModel, with its version
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (revision_id, endpoint)
);
CREATE INDEX cost_models_model ON cost_models (model_id, updated_at);

CREATE TABLE cost_cursor (                     -- the last fact learned from: moves in the transaction that stores models
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    finished_at timestamptz NOT NULL,
    request_id  uuid NOT NULL
);
