-- What has been found wrong with models, revisions and replicas: written by canaries, probes, contracts and detectors.

CREATE TABLE quality_findings (
    finding_id        text PRIMARY KEY,        -- quality/findings.py: the same for the same thing found again
    model_id          text NOT NULL,
    source            text NOT NULL,
    since             timestamptz NOT NULL,    -- estimate of when it began
    first_at          timestamptz NOT NULL,
    last_at           timestamptz NOT NULL,
    times             integer NOT NULL,
    finding           jsonb NOT NULL,          -- quality/findings.py Finding
    closed_at         timestamptz,
    closed_for        text NOT NULL DEFAULT ''
);
CREATE INDEX quality_findings_by_time ON quality_findings (last_at);
