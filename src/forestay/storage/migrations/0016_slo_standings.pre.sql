-- How every SLO stands after the last minute that was counted: written by the loop that watches them.

CREATE TABLE slo_standings (
    slo_id            text PRIMARY KEY,
    kept_at           timestamptz NOT NULL,
    standing          jsonb NOT NULL           -- slo/standing.py Standing
);
