-- What people took out of error budgets, and what budgets demand. Owner: slo.

CREATE TABLE slo_adjustments (                  -- never edited; one that was wrong is withdrawn, and stays
    number            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slo_id            text NOT NULL,
    first_minute      bigint NOT NULL,         -- since 1970-01-01T00:00Z
    until_minute      bigint NOT NULL CHECK (until_minute > first_minute),
    by                text NOT NULL,
    reason            text NOT NULL,
    at                timestamptz NOT NULL,
    withdrawn_by      text,
    withdrawn_at      timestamptz
);
CREATE UNIQUE INDEX slo_adjustments_once ON slo_adjustments (slo_id, first_minute, until_minute)
    WHERE withdrawn_at IS NULL;

CREATE TABLE slo_decisions (                    -- append-only; the newest of an SLO stands
    slo_id            text NOT NULL,
    minute            bigint NOT NULL,         -- the last one that was counted
    subject           text NOT NULL,           -- a kind and a name, as in slo_standings
    action            text NOT NULL,           -- none | slow_rollouts | require_approval | freeze
    left_ratio        double precision NOT NULL,
    reason            text NOT NULL,
    decided_at        timestamptz NOT NULL,
    PRIMARY KEY (slo_id, minute)
);
CREATE INDEX slo_decisions_of_subject ON slo_decisions (subject, slo_id, minute DESC);
