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

-- name: tell_files
-- Keeps what is known of the files of SLOs ($1: a JSON array of name, slos, faults), and forgets files that are gone.
WITH told AS (
    SELECT value->>'name' AS name, (value->>'slos')::integer AS slos,
           ARRAY(SELECT jsonb_array_elements_text(value->'faults')) AS faults
    FROM jsonb_array_elements($1::text::jsonb)
), gone AS (
    DELETE FROM slo_files WHERE name NOT IN (SELECT name FROM told)
)
INSERT INTO slo_files (name, slos, faults) SELECT name, slos, faults FROM told
ON CONFLICT (name) DO UPDATE SET slos = EXCLUDED.slos, faults = EXCLUDED.faults, read_at = clock_timestamp();

-- name: files
-- Reads what is known of the files of SLOs.
SELECT name, slos, faults, read_at FROM slo_files ORDER BY name;
