-- Calls: one row for each call of a model and each refused credential, what the judges of misuse read. No prompt, no
-- address, no credential: hashes under the deployment's key and truncated networks.

CREATE SEQUENCE call_facts_position;

CREATE TABLE call_facts (
    at                timestamptz NOT NULL,
    call_id           uuid NOT NULL,           -- the request's id where there is one
    position          bigint NOT NULL DEFAULT nextval('call_facts_position'),  -- in order of commit: writers take turns
    tenant_id         text NOT NULL,           -- empty where nobody was proven
    key_id            text NOT NULL,
    model_id          text NOT NULL,
    lane              text NOT NULL,           -- queue | direct | stream | realtime | rest | cdn | root
    verb              text NOT NULL,
    network           text NOT NULL,           -- /24 of IPv4, /48 of IPv6
    agent             text NOT NULL,           -- keyed digest of the client's kind
    accepted          boolean NOT NULL,
    cause             text NOT NULL,           -- of a refusal
    status_code       int NOT NULL,
    predicted_seconds double precision NOT NULL,
    prompt            bigint,                  -- 64-bit simhash under the key; null without text
    raw               bigint NOT NULL,         -- keyed digest of the text as it was written
    prompt_chars      int NOT NULL,
    meaning           bytea,                   -- 256-bit sign hash of the embedding, where there is one
    shape             bigint NOT NULL,         -- keyed digest of the request beside its text
    claimed           text NOT NULL,           -- the key id that a refused credential names
    tried             bigint NOT NULL,         -- keyed digest of the refused credential
    PRIMARY KEY (at, call_id)
) PARTITION BY RANGE (at);
CREATE TABLE call_facts_default PARTITION OF call_facts DEFAULT;
CREATE INDEX call_facts_position_order ON call_facts (position);
