-- Status polls and result reads of the queue: one row for each minute of a gateway that had some. Counts alone.

CREATE TABLE poll_facts (
    finished_at timestamptz NOT NULL,          -- the minute in which they were answered
    count_id    uuid NOT NULL,                 -- the same when it is written again after an unclear answer
    gateway_id  text NOT NULL,
    good        bigint NOT NULL,
    bad         bigint NOT NULL,
    position    bigint NOT NULL DEFAULT nextval('fact_position'),
    PRIMARY KEY (finished_at, count_id)
) PARTITION BY RANGE (finished_at);
CREATE TABLE poll_facts_default PARTITION OF poll_facts DEFAULT;
CREATE INDEX poll_facts_position_order ON poll_facts (position);

ALTER TABLE rollups
    ADD COLUMN polls_good bigint,              -- null in rows that were made before polls were counted
    ADD COLUMN polls_bad  bigint;
