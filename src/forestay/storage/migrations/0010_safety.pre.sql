-- Policies of the guard, their stages, and waivers. Owner: safety.

CREATE TABLE safety_policies (                 -- append-only: a version is never changed
    policy_id text NOT NULL,
    version   int NOT NULL,                    -- from 1; 0 is what Forestay brings
    text      text NOT NULL,                   -- YAML
    seal      bytea NOT NULL,                  -- HMAC under the platform's key: who can write rows cannot set policies
    reason    text NOT NULL,
    set_at    timestamptz NOT NULL DEFAULT now(),
    set_by    text NOT NULL,
    PRIMARY KEY (policy_id, version)
);

CREATE TABLE safety_stages (
    policy_id text PRIMARY KEY,
    live      int NOT NULL,                    -- the version in force
    candidate int,                             -- the one that judges in shadow, or decides for a share of requests
    percent   double precision NOT NULL,
    set_at    timestamptz NOT NULL DEFAULT now(),
    set_by    text NOT NULL
);

CREATE TABLE safety_waivers (                  -- break glass: trouble of a detector releases as flagged, for a while
    waiver_id   uuid PRIMARY KEY,
    detector_id text NOT NULL,
    model_id    text NOT NULL,                 -- empty: every model
    reason      text NOT NULL,
    until       timestamptz NOT NULL,
    ended_at    timestamptz,
    set_at      timestamptz NOT NULL DEFAULT now(),
    set_by      text NOT NULL
);
