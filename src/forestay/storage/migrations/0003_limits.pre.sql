-- Limits and budgets: the rules that people set, what each month has cost, and which gateways count.

CREATE TABLE limit_rules (
    scope      text NOT NULL CHECK (scope IN ('key', 'tenant', 'model', 'fleet')),
    subject    text NOT NULL,                  -- the id; '*': each that has no rule of this kind of its own
    kind       text NOT NULL CHECK (kind IN ('requests_per_second', 'in_flight', 'gpu_seconds_per_minute',
                                             'gpu_seconds_per_month', 'money_per_month')),
    amount     double precision NOT NULL CHECK (amount > 0),  -- in the kind's unit; money in hundredths
    burst      double precision NOT NULL DEFAULT 0,           -- of requests_per_second: how many may come at once
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, subject, kind)
);

CREATE TABLE limit_version (                   -- bumped by every change of a rule
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version  bigint NOT NULL DEFAULT 1
);
INSERT INTO limit_version DEFAULT VALUES;

CREATE TABLE gateways_seen (                   -- by n of them a limit is shared while the counters are away
    gateway_id text PRIMARY KEY,
    seen_at    timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE usage (                           -- what was settled, each finished request once
    month       date NOT NULL,                 -- first day, UTC, of the month in which it finished
    tenant_id   text NOT NULL,
    key_id      text NOT NULL,
    model_id    text NOT NULL,
    gpu_seconds double precision NOT NULL,     -- device-seconds
    money       double precision NOT NULL,     -- hundredths of the currency unit
    requests    bigint NOT NULL,
    PRIMARY KEY (month, tenant_id, key_id, model_id)
) WITH (fillfactor = 70);
CREATE INDEX usage_model ON usage (month, model_id);

CREATE TABLE usage_marks (                     -- the last batch that each gateway has settled: a repeated one changes nothing
    source   text PRIMARY KEY,
    sequence bigint NOT NULL,
    at       timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

CREATE TABLE limit_closings (                  -- settled requests whose predictions the counters still hold
    position    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request_id  uuid NOT NULL,
    tenant_id   text NOT NULL,
    key_id      text NOT NULL,
    model_id    text NOT NULL,
    gpu_seconds double precision NOT NULL,
    at          timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
