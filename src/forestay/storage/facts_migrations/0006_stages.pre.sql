-- The time of every stage, the cause of a failure, device and kind of traffic; deliveries; and one position in order of
-- commit over all of them, from which readers go on. Old rows have null in what is new here.

CREATE SEQUENCE fact_position;

ALTER TABLE request_facts
    ADD COLUMN position      bigint,           -- in order of commit: writers take turns
    ADD COLUMN source        text,             -- who saw it: null and empty are ourselves, else a feed's name
    ADD COLUMN traffic       text,             -- caller | probe | canary
    ADD COLUMN cause         text,             -- closed vocabulary: telemetry/causes.py; null without a failure
    ADD COLUMN worker_id     text,
    ADD COLUMN device        text,
    ADD COLUMN queued_at     timestamptz,      -- could be claimed from then on: submit, or the end of a back-off
    ADD COLUMN leased_at     timestamptz,
    ADD COLUMN first_byte_at timestamptz,      -- of a stream
    ADD COLUMN answered_at   timestamptz,      -- the model's whole answer
    ADD COLUMN checked_at    timestamptz,      -- its output was judged
    ADD COLUMN traceparent   text;
ALTER TABLE request_facts ALTER COLUMN position SET DEFAULT nextval('fact_position');
CREATE INDEX request_facts_position_order ON request_facts (position);

ALTER TABLE attempt_facts
    ADD COLUMN position      bigint,
    ADD COLUMN traffic       text,
    ADD COLUMN cause         text,
    ADD COLUMN device        text,
    ADD COLUMN queued_at     timestamptz,
    ADD COLUMN checked_at    timestamptz;
ALTER TABLE attempt_facts ALTER COLUMN position SET DEFAULT nextval('fact_position');
CREATE INDEX attempt_facts_position_order ON attempt_facts (position);

-- What became of a request's webhook.
CREATE TABLE delivery_facts (
    finished_at         timestamptz NOT NULL,  -- the receiver had it, or it was given up
    request_id          uuid NOT NULL,
    tenant_id           text NOT NULL,
    model_id            text NOT NULL,
    endpoint            text NOT NULL,
    revision_id         text,
    outcome             text NOT NULL,         -- delivered | dead
    tries               int NOT NULL,
    status_code         int,
    request_finished_at timestamptz NOT NULL,
    traffic             text,
    position            bigint NOT NULL DEFAULT nextval('fact_position'),
    PRIMARY KEY (finished_at, request_id)
) PARTITION BY RANGE (finished_at);
CREATE TABLE delivery_facts_default PARTITION OF delivery_facts DEFAULT;
CREATE INDEX delivery_facts_position_order ON delivery_facts (position);
