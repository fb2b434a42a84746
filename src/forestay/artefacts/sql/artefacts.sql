-- name: save_report
-- Keeps the report on a bundle; a later one takes the place of an earlier.
INSERT INTO artefacts (bundle_digest, reader, report) VALUES ($1, $2, $3::text::jsonb)
ON CONFLICT (bundle_digest) DO UPDATE SET reader = excluded.reader, report = excluded.report, recorded_at = now();

-- name: select_report
-- Reads the report on a bundle.
SELECT report::text AS report FROM artefacts WHERE bundle_digest = $1;

-- name: select_keys
-- Lists the trusted keys by name.
SELECT name, fingerprint, public_key, added_by, added_at FROM trusted_keys ORDER BY name;

-- name: insert_key
-- Trusts a key; no row comes back when its name or the key itself is there already.
INSERT INTO trusted_keys (name, fingerprint, public_key, added_by) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING
RETURNING name;

-- name: delete_key
-- Stops trusting a key; no row comes back when there is none of that name.
DELETE FROM trusted_keys WHERE name = $1 RETURNING fingerprint;
