-- What people look at again: sealed copies and who read them, items, votes, labels, and what is told of them. Owner: safety.

CREATE TABLE sealed (                           -- content under seal (safety/review/seal); never readable in here
    sealed_id  text PRIMARY KEY,
    key_name   text NOT NULL,                   -- of the sealing key, so that keys may rotate
    kind       text NOT NULL,                   -- input | output | media
    request_id text NOT NULL,
    tenant_id  text NOT NULL,
    data       bytea,                           -- NULL: in the object store, as sealed/<sealed_id>
    size_bytes bigint NOT NULL DEFAULT -1,      -- of the content; -1 until the object has arrived
    held       boolean NOT NULL DEFAULT false,  -- the law may ask for it: retention leaves it alone
    sealed_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX sealed_old ON sealed (sealed_at) WHERE NOT held;

CREATE TABLE sealed_reads (                     -- append-only: written before the content is given out
    read_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sealed_id  text NOT NULL,
    item_id    text NOT NULL,                   -- empty: not read for an item
    actor      text NOT NULL,
    how        text NOT NULL,                   -- text | blurred | clear | carried_out | report
    reason     text NOT NULL,
    at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX sealed_reads_item ON sealed_reads (item_id, read_id);
CREATE FUNCTION refuse_sealed_reads_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'sealed_reads is append-only: % refused', TG_OP;
END $$;
CREATE TRIGGER sealed_reads_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON sealed_reads
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_sealed_reads_change();

CREATE TABLE reviews (                          -- one row a judgement that stopped something
    item_id        text PRIMARY KEY,
    position       bigint GENERATED ALWAYS AS IDENTITY UNIQUE,  -- for paging
    request_id     uuid NOT NULL,
    attempt        integer NOT NULL,
    point          text NOT NULL,               -- input | output
    tenant_id      text NOT NULL,
    key_id         text NOT NULL,
    model_id       text NOT NULL,
    endpoint       text NOT NULL,
    policy_id      text NOT NULL,
    policy_version integer NOT NULL,
    verdict        text NOT NULL,               -- block | inconclusive
    category       text,
    place          text NOT NULL,
    reason         text NOT NULL,
    rules          jsonb NOT NULL,              -- the policy's own, as they were
    sealed_id      text NOT NULL DEFAULT '',
    opened_at      timestamptz NOT NULL DEFAULT now(),
    state          text NOT NULL DEFAULT 'open',  -- open | claimed | escalated | decided
    escalated      boolean NOT NULL DEFAULT false,
    round          integer NOT NULL DEFAULT 1,
    claimed_by     text,
    claimed_until  timestamptz,
    outcome        text,                        -- released | upheld | lapsed
    decided_at     timestamptz,
    decided_by     text[],
    decided_reason text,
    appealed_at    timestamptz,
    appealed_by    text,
    appeal_words   text,
    linked_id      uuid UNIQUE,                 -- the request that a successful appeal makes, chosen with the decision
    done_at        timestamptz,                 -- when the decision had been carried out
    tries          integer NOT NULL DEFAULT 0,  -- at carrying it out
    due_at         timestamptz NOT NULL DEFAULT now(),
    problem        text NOT NULL DEFAULT ''
);
CREATE INDEX reviews_request ON reviews (request_id);
CREATE INDEX reviews_sealed ON reviews (sealed_id) WHERE sealed_id <> '';
CREATE INDEX reviews_waiting ON reviews (position) WHERE state <> 'decided';
CREATE INDEX reviews_of_key ON reviews (key_id) WHERE state <> 'decided' AND appealed_at IS NULL;
CREATE INDEX reviews_due ON reviews (due_at) WHERE state = 'decided' AND done_at IS NULL;

CREATE TABLE review_votes (
    vote_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    item_id   text NOT NULL REFERENCES reviews ON DELETE CASCADE,
    round     integer NOT NULL,
    voter     text NOT NULL,
    is_person boolean NOT NULL,
    ballot    text NOT NULL,                    -- release | block | escalate
    reason    text NOT NULL,
    at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX review_votes_item ON review_votes (item_id, vote_id);

CREATE TABLE review_labels (                    -- what people found: the truth that replays are measured by
    request_id uuid NOT NULL,
    point      text NOT NULL,
    category   text,
    label      text NOT NULL,                   -- safe | unsafe
    set_by     text NOT NULL,
    set_at     timestamptz NOT NULL DEFAULT now(),
    position   bigint GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (request_id, point)
);
CREATE INDEX review_labels_position ON review_labels (position);

CREATE TABLE review_events (                    -- what is told to FORESTAY_REVIEW_URL; ids and words, never content
    event_id    text PRIMARY KEY,
    position    bigint GENERATED ALWAYS AS IDENTITY,
    item_id     text NOT NULL,
    body        jsonb NOT NULL,
    state       text NOT NULL DEFAULT 'pending',  -- pending | delivered | dead
    tries       integer NOT NULL DEFAULT 0,
    due_at      timestamptz NOT NULL DEFAULT now(),
    last_status integer,
    last_error  text NOT NULL DEFAULT '',
    made_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX review_events_due ON review_events (due_at) WHERE state = 'pending';
