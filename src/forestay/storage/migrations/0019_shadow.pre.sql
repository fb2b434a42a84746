-- The shadow stage of rollouts: what workers offer to mirror, and what came of the mirrored. Owner: rollouts.

CREATE UNLOGGED TABLE shadow_offers (          -- lost in a crash: others follow
    request_id     uuid PRIMARY KEY,
    model_id       text NOT NULL,
    revision_id    text NOT NULL,
    endpoint       text NOT NULL,
    stratum        text NOT NULL,
    body           bytea NOT NULL,             -- a caller's input: dropped within the hour
    answer         bytea NOT NULL,
    device_seconds double precision NOT NULL,
    at             timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX shadow_offers_of_model ON shadow_offers (model_id, at DESC);

CREATE TABLE shadow_pairs (
    rollout_id text NOT NULL REFERENCES rollouts ON DELETE CASCADE,
    request_id uuid NOT NULL,                  -- the caller's
    number     bigint GENERATED ALWAYS AS IDENTITY,
    begun_at   timestamptz NOT NULL,
    ended      boolean NOT NULL DEFAULT false,
    state      jsonb NOT NULL,                 -- rollouts/shadow/model.Pair; inputs and answers are cut out at the end
    PRIMARY KEY (rollout_id, request_id)
);
