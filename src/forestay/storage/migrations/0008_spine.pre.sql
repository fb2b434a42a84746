-- What the spine remembers besides: routes that wait for a ready replica, answers held back, what an attempt hands to
-- the next one, and the tags of finished requests. Old code ignores all of it.

CREATE TABLE pending_routes (                  -- a deploy that takes the model's traffic once a replica of it is ready
    model_id    text PRIMARY KEY REFERENCES models,
    revision_id text NOT NULL REFERENCES revisions,
    since       timestamptz NOT NULL,
    until       timestamptz NOT NULL,          -- given up when no replica is ready by then
    given_up    text NOT NULL DEFAULT ''       -- why; empty while it is waited for
);

ALTER TABLE requests
    ADD COLUMN withheld jsonb,                 -- of a WITHHELD request: the status, headers and error of its answer
    ADD COLUMN carried  text;                  -- what a provider's attempt leaves to the next: the upstream job it waits for
ALTER TABLE finished_requests
    ADD COLUMN tags jsonb;                     -- X-Fal-Tags; null without any
