-- name: keep
-- Keeps what was sealed for a finding; opened again, the newer one stands.
INSERT INTO quality_evidence (finding_id, opened_at, words, copies) VALUES ($1, $2, $3, $4::text::jsonb)
ON CONFLICT (finding_id) DO UPDATE SET
    opened_at = EXCLUDED.opened_at, words = EXCLUDED.words, copies = EXCLUDED.copies;

-- name: of
-- Reads what was sealed for these findings.
SELECT finding_id, opened_at, words, copies::text AS copies FROM quality_evidence WHERE finding_id = ANY ($1);

-- name: forget
-- Removes what was opened before $1.
DELETE FROM quality_evidence WHERE opened_at < $1;
