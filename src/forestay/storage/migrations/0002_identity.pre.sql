-- Identity: what a key may do and from where, how its secret is hashed, its successor; people, their sessions, and the
-- brakes on signing in. Old code ignores the new columns: upgrade every gateway before issuing narrower keys.

ALTER TABLE keys
    ADD COLUMN secret_form  text NOT NULL DEFAULT 'sha256',  -- sha256 | hmac-sha256:<id of the pepper>
    ADD COLUMN grants       jsonb NOT NULL DEFAULT '[]',     -- [{"models": [...], "verbs": [...]}]; none: everything
    ADD COLUMN networks     text[] NOT NULL DEFAULT '{}',    -- CIDR; none: everywhere
    ADD COLUMN privileges   text[] NOT NULL DEFAULT '{}',
    ADD COLUMN successor_of text REFERENCES keys,
    ADD COLUMN changed_at   timestamptz;                     -- when what gateways remember of it last changed
CREATE INDEX keys_changed ON keys (changed_at) WHERE changed_at IS NOT NULL;
CREATE UNIQUE INDEX keys_successor ON keys (successor_of) WHERE successor_of IS NOT NULL AND revoked_at IS NULL;

CREATE TABLE people (
    person_id     text PRIMARY KEY,
    issuer        text NOT NULL DEFAULT '',    -- OIDC issuer; empty: signs in here, by password
    subject       text NOT NULL,               -- the issuer's own name for the person; here: the e-mail address
    email         text NOT NULL DEFAULT '',    -- lower case, for people to read
    role          text NOT NULL CHECK (role IN ('viewer', 'analyst', 'operator', 'admin')),
    password      text,                        -- scrypt$<log2 n>$<r>$<p>$<salt>$<hash>; null: no password
    one_time_until timestamptz,                -- set while the password is one that an administrator handed out
    created_at    timestamptz NOT NULL DEFAULT now(),
    disabled_at   timestamptz,
    signed_in_at  timestamptz,
    UNIQUE (issuer, subject)
);

CREATE TABLE sessions (
    session_id  text PRIMARY KEY,
    token_hash  bytea NOT NULL UNIQUE,         -- sha-256 of a 256-bit random token
    person_id   text NOT NULL REFERENCES people,
    way         text NOT NULL,                 -- password | oidc
    created_at  timestamptz NOT NULL DEFAULT now(),
    seen_at     timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    revoked_at  timestamptz
);
CREATE INDEX sessions_person ON sessions (person_id) WHERE revoked_at IS NULL;
CREATE INDEX sessions_expiry ON sessions (expires_at);

CREATE TABLE sign_in_failures (                -- failures in a row: the next try waits, longer each time
    subject   text PRIMARY KEY,                -- account:<sha-256 of what was typed> | network:<prefix>
    failures  int NOT NULL,
    failed_at timestamptz NOT NULL
);
CREATE INDEX sign_in_failures_age ON sign_in_failures (failed_at);

CREATE TABLE used_proofs (                     -- states and tokens that may be shown once
    digest     bytea PRIMARY KEY,
    expires_at timestamptz NOT NULL
);
CREATE INDEX used_proofs_expiry ON used_proofs (expires_at);
