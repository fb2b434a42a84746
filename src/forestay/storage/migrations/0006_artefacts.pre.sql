-- What was seen of a model's files at import, and whose signatures count. Owned by artefacts.

CREATE TABLE artefacts (                        -- one row a bundle, written when it is first deployed
    bundle_digest text PRIMARY KEY,             -- sha-256 of the bundle's bytes, hex
    reader        integer NOT NULL,             -- artefacts/report.py READER: which readers judged
    report        jsonb NOT NULL,               -- files with size and sha-256, findings, signatures, opinions
    recorded_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE trusted_keys (                     -- public keys whose signatures over models count
    name        text PRIMARY KEY,               -- what specs ask for
    fingerprint text NOT NULL UNIQUE,           -- sha-256 of the PEM, hex: the hint in a signature
    public_key  text NOT NULL,                  -- PEM
    added_by    text NOT NULL,
    added_at    timestamptz NOT NULL DEFAULT now()
);
