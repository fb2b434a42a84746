-- name: keep
-- Keeps how SLOs stand ($1: a JSON array) as of $2, and forgets those that are no more.
WITH told AS (
    SELECT value->>'slo_id' AS slo_id, value AS standing FROM jsonb_array_elements($1::text::jsonb)
), gone AS (
    DELETE FROM slo_standings WHERE slo_id NOT IN (SELECT slo_id FROM told)
)
INSERT INTO slo_standings (slo_id, kept_at, standing)
SELECT slo_id, $2, standing FROM told
ON CONFLICT (slo_id) DO UPDATE SET kept_at = EXCLUDED.kept_at, standing = EXCLUDED.standing;

-- name: all
-- Reads how every SLO stands, in order of id.
SELECT kept_at, standing::text AS standing FROM slo_standings ORDER BY slo_id LIMIT $1;

-- name: one
-- Reads how one SLO stands.
SELECT kept_at, standing::text AS standing FROM slo_standings WHERE slo_id = $1;
