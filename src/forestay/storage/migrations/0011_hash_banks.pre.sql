-- Banks of known hashes, and reports that the law asks for. Owner: safety.

CREATE TABLE hash_clock (                       -- one row; whoever changes banks or entries holds it until commit,
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),  -- so that versions become visible in their order
    version bigint NOT NULL
);
INSERT INTO hash_clock (version) VALUES (0);

CREATE TABLE hash_banks (
    bank_number   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    bank_id       text NOT NULL UNIQUE,
    source        text NOT NULL,                -- who says so: an exchange, a list, an own review
    category      text NOT NULL,                -- safety/taxonomy
    threshold     smallint NOT NULL CHECK (threshold BETWEEN 0 AND 31),  -- bits that may differ
    hint          text NOT NULL,                -- block | review | report
    enabled_ratio double precision NOT NULL CHECK (enabled_ratio BETWEEN 0 AND 1),  -- share of contents it is asked about
    added_by      text NOT NULL,
    added_at      timestamptz NOT NULL DEFAULT now(),
    changed       bigint NOT NULL               -- hash_clock at its last change
);

CREATE TABLE hash_entries (
    entry_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    bank_number      integer NOT NULL REFERENCES hash_banks,
    hash             bytea NOT NULL CHECK (octet_length(hash) = 32),  -- PDQ, the highest bit first
    threshold        smallint CHECK (threshold BETWEEN 0 AND 31),     -- narrower than its bank's; NULL: the bank's
    note             text NOT NULL DEFAULT '',
    added_by         text NOT NULL,
    added_at         timestamptz NOT NULL DEFAULT now(),
    removed_by       text,
    removed_at       timestamptz,
    suspended_reason text,                      -- set by flood control: it leads to review, no longer to a block
    suspended_at     timestamptz,
    changed          bigint NOT NULL
);
CREATE UNIQUE INDEX hash_entries_once ON hash_entries (bank_number, hash) WHERE removed_at IS NULL;
CREATE INDEX hash_entries_changed ON hash_entries (changed, entry_id);

CREATE TABLE hash_reports (                     -- one row a case: match -> block, preserve, report
    case_id        text PRIMARY KEY,
    entry_id       bigint NOT NULL,
    bank_id        text NOT NULL,
    category       text NOT NULL,
    distance       smallint NOT NULL,
    request_id     text NOT NULL,
    tenant_id      text NOT NULL,
    place          text NOT NULL,               -- the field of the input, or the place in the output
    state          text NOT NULL,               -- matched | blocked | preserved | reported | undelivered
    sealed_id      text NOT NULL DEFAULT '',    -- what the preserved copy is called in the sealed store
    tries          integer NOT NULL DEFAULT 0,
    due_at         timestamptz NOT NULL DEFAULT now(),
    proof          jsonb,                       -- receiver's status, digest of its headers, time
    problem        text NOT NULL DEFAULT '',
    matched_at     timestamptz NOT NULL,
    UNIQUE (request_id, place, entry_id)        -- a case is opened once, however often the request is tried
);
CREATE INDEX hash_reports_due ON hash_reports (due_at) WHERE state IN ('matched', 'blocked', 'preserved');

CREATE FUNCTION hash_tokens(hash bytea) RETURNS integer[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (SELECT array_agg((part << 16) | (get_byte(hash, 2 * part) << 8) | get_byte(hash, 2 * part + 1))
            FROM generate_series(0, 15) AS part);

CREATE TABLE fingerprints (                     -- what we released, by how it looks
    fingerprint_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hash           bytea NOT NULL CHECK (octet_length(hash) = 32),
    quality        smallint NOT NULL,           -- 0 to 100: how much structure the picture has
    request_id     text NOT NULL,
    model_id       text NOT NULL,
    revision_id    text NOT NULL,
    media_id       text NOT NULL,
    place          text NOT NULL,               -- "" for a picture, "frame 12" of a film
    mark_id        bigint,                      -- what its watermark says, where it has one
    made_at        timestamptz NOT NULL,
    UNIQUE (media_id, place)
);
-- Exact within 31 bits: of sixteen parts of such a hash one has at most one bit turned.
CREATE INDEX fingerprints_near ON fingerprints USING gin (hash_tokens(hash));
CREATE INDEX fingerprints_mark ON fingerprints (mark_id) WHERE mark_id IS NOT NULL;
