-- Alerts, what is told of them, and what people say to them. Owner: alerts. Old code knows nothing of it.

CREATE TABLE alert_head (                      -- one row: whoever decides locks it, and writes only on what it has read
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version    bigint NOT NULL DEFAULT 0,
    decided_at timestamptz,                    -- when alerts were last decided: the dead-man's switch looks at it
    routes     jsonb NOT NULL DEFAULT '{}'     -- what the controller last read: names of routes and receivers, no address
);
INSERT INTO alert_head DEFAULT VALUES;

CREATE TABLE alerts (
    alert_id    text PRIMARY KEY,              -- al_<16 hex>, of the fingerprint and the opening
    fingerprint text NOT NULL,                 -- of source, name and subject
    state       text NOT NULL CHECK (state IN ('firing', 'resolved')),
    severity    text NOT NULL,
    live        boolean NOT NULL,              -- deciding still needs it; false: history
    opened_at   timestamptz NOT NULL,
    data        jsonb NOT NULL                 -- the whole value (alerts/model.Alert)
);
CREATE UNIQUE INDEX alerts_one_open ON alerts (fingerprint) WHERE state = 'firing';
CREATE INDEX alerts_live ON alerts (alert_id) WHERE live;
CREATE INDEX alerts_opened ON alerts (opened_at);

CREATE TABLE alert_groups (
    group_key   text PRIMARY KEY,
    notified_at timestamptz NOT NULL
);

CREATE TABLE alert_events (                    -- append-only: what was decided about an alert, and why
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alert_id text NOT NULL,
    at       timestamptz NOT NULL,
    what     text NOT NULL,                    -- open | update | resolve | suppress | notify | ack
    reason   text NOT NULL
);
CREATE INDEX alert_events_alert ON alert_events (alert_id, position);
CREATE INDEX alert_events_at ON alert_events (at);

CREATE TABLE alert_acks (                      -- people's, so that they never wait for the loop
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alert_id text NOT NULL REFERENCES alerts ON DELETE CASCADE,
    at       timestamptz NOT NULL,
    by       text NOT NULL,
    why      text NOT NULL
);
CREATE INDEX alert_acks_alert ON alert_acks (alert_id, position);

CREATE TABLE alert_silences (
    silence_id text PRIMARY KEY,
    matchers   text[] NOT NULL,
    since      timestamptz NOT NULL,
    until      timestamptz NOT NULL,
    by         text NOT NULL,
    why        text NOT NULL,
    ended_at   timestamptz,
    ended_by   text
);
CREATE INDEX alert_silences_until ON alert_silences (until);

CREATE TABLE alert_notifications (             -- the outbox: a row commits with the decision to tell
    position        bigint GENERATED ALWAYS AS IDENTITY,
    notification_id text PRIMARY KEY,          -- follows from what is told: decided twice it is there once
    receiver        text NOT NULL,
    group_key       text NOT NULL,
    body            text NOT NULL,             -- JSON, as it was at the decision: every try sends the same
    state           text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'dead')),
    tries           smallint NOT NULL DEFAULT 0,
    next_try_at     timestamptz NOT NULL,
    last_error      text,
    created_at      timestamptz NOT NULL,
    delivered_at    timestamptz
);
CREATE INDEX alert_notifications_pending ON alert_notifications (receiver, group_key, position) WHERE state = 'pending';
CREATE INDEX alert_notifications_created ON alert_notifications (created_at);

-- Alerting asks how many outputs are withheld. The column changes only when one is: other steps stay index-free.
CREATE INDEX requests_withheld ON requests (submitted_at) WHERE withheld IS NOT NULL;
