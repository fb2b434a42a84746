-- Standings of callers, their appeals, and what the abuse loop remembers. Owners: fleet (standings, appeals), abuse (the rest).

ALTER TABLE brakes ADD COLUMN standing_cap int NOT NULL DEFAULT 20;  -- callers that automation may newly restrict per window

CREATE TABLE standings (
    standing_id    text PRIMARY KEY,           -- st_<16 hex>: what the caller is told and appeals with
    subject        text NOT NULL,              -- key:<id> | tenant:<id> | network:<prefix>
    kind           text NOT NULL CHECK (kind IN ('watch', 'refer', 'throttle', 'step_up', 'suspend')),
    code           text NOT NULL,
    rule           text NOT NULL,
    reason         text NOT NULL,
    since          timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL,
    factor         float NOT NULL DEFAULT 1,
    freeze_results boolean NOT NULL DEFAULT false,
    origin         text NOT NULL,              -- human | abuse | safety | ...
    evidence       jsonb NOT NULL DEFAULT '{}',  -- numbers and ids of facts, never a prompt
    ended_at       timestamptz,
    ended_how      text CHECK (ended_how IN ('expired', 'replaced', 'lifted')),
    ended_by       text,
    ended_why      text,
    pardon_until   timestamptz                 -- after a lift: automation sets none on this subject before
);
CREATE UNIQUE INDEX standings_one_each ON standings (subject) WHERE ended_at IS NULL;
CREATE INDEX standings_newest ON standings (since DESC);
CREATE INDEX standings_pardons ON standings (pardon_until) WHERE pardon_until IS NOT NULL;

CREATE TABLE appeals (
    appeal_id   text PRIMARY KEY,              -- ap_<16 hex>
    standing_id text NOT NULL REFERENCES standings,
    made_at     timestamptz NOT NULL DEFAULT now(),
    made_by     text NOT NULL,                 -- caller:<key id> | human:<key id>
    words       text NOT NULL,
    state       text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'granted', 'denied', 'moot')),
    decided_at  timestamptz,
    decided_by  text,
    decision    text
);
CREATE UNIQUE INDEX appeals_one_open ON appeals (standing_id) WHERE state = 'open';
CREATE INDEX appeals_newest ON appeals (made_at DESC);
