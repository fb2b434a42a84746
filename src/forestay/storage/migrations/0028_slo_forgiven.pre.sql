-- Bad events that a person gave back to an error budget, beside stretches of time that are taken out. Owner: slo.

ALTER TABLE slo_adjustments
    ADD COLUMN forgiven bigint NOT NULL DEFAULT 0 CHECK (forgiven >= 0);  -- 0: the minutes are out instead
