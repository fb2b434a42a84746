-- Released outputs that were looked at once more: what people, or a second detector, found. Owner: safety.

CREATE TABLE safety_audits (                    -- never edited; holds no content
    request_id     uuid PRIMARY KEY,
    model_id       text NOT NULL,
    tenant_id      text NOT NULL,
    policy_id      text NOT NULL,               -- that released it; empty: it went out unjudged
    policy_version int NOT NULL,
    released_at    timestamptz NOT NULL,
    wrong          boolean NOT NULL,            -- it should not have gone out
    by             text NOT NULL,
    reason         text NOT NULL,
    labelled_at    timestamptz NOT NULL
);
CREATE INDEX safety_audits_by_release ON safety_audits (released_at);
