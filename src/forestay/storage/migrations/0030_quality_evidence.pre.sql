-- What was sealed when something was found wrong with outputs: which copies, never what they show. Owner: quality.

CREATE TABLE quality_evidence (
    finding_id text PRIMARY KEY,
    opened_at  timestamptz NOT NULL,
    words      text NOT NULL,                  -- what was taken, or why nothing was
    copies     jsonb NOT NULL                  -- quality/evidence.py Copy, without content
);
