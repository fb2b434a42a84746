-- What the abuse loop remembers between runs and restarts, and the rules that people have set. Owner: abuse.

CREATE TABLE abuse_state (                     -- one snapshot in parts, written in one transaction
    part     text PRIMARY KEY,                 -- meta | clusters | guessing | counters | keys-<shard>
    data     bytea NOT NULL,                   -- msgpack, deflated
    saved_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE abuse_rules (                     -- the newest row is in force; without one, the rules that come along
    version bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    text    text NOT NULL,                     -- YAML; empty: back to the rules that come along
    set_at  timestamptz NOT NULL DEFAULT now(),
    set_by  text NOT NULL
);
