-- Rollouts: the journey of a candidate revision, and its journal. Owner: rollouts.

CREATE TABLE rollouts (
    rollout_id text PRIMARY KEY,
    model_id   text NOT NULL,
    version    bigint NOT NULL,                -- every change adds one; a write that has seen another number is refused
    settled    boolean NOT NULL,               -- its end is carried out: nothing is left to do
    state      jsonb NOT NULL,                 -- rollouts/model.Rollout
    started_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX rollouts_one_at_a_time ON rollouts (model_id) WHERE NOT settled;
CREATE INDEX rollouts_of_model ON rollouts (model_id, started_at DESC);

CREATE TABLE rollout_journal (                 -- append-only: what was decided, before it was done
    rollout_id text NOT NULL REFERENCES rollouts ON DELETE CASCADE,
    version    bigint NOT NULL,                -- of the rollout after this step
    at         timestamptz NOT NULL,
    actor      text NOT NULL,
    stage      text NOT NULL,
    weight     double precision NOT NULL,      -- percent
    reason     text NOT NULL,
    PRIMARY KEY (rollout_id, version)
);

CREATE TABLE route_steps (                     -- owner: fleet
    model_id   text PRIMARY KEY,
    rollout_id text NOT NULL,
    version    bigint NOT NULL                 -- the last step that its rollout has recorded; older ones move no routes
);

ALTER TABLE pending_routes ADD COLUMN held boolean NOT NULL DEFAULT false;  -- only loaded: a rollout gives it traffic
