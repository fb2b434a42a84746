-- name: keep
-- Keeps what was found ($1: a JSON array with ids) at $2; tells of each whether it was not open before.
WITH told AS (
    SELECT value->>'finding_id' AS finding_id, value->>'model_id' AS model_id, value->>'source' AS source,
           (value->>'since')::timestamptz AS since, value->'finding' AS finding
    FROM jsonb_array_elements($1::text::jsonb)
), before AS (
    SELECT finding_id FROM quality_findings
    WHERE closed_at IS NULL AND finding_id IN (SELECT finding_id FROM told)
), kept AS (
    INSERT INTO quality_findings (finding_id, model_id, source, since, first_at, last_at, times, finding)
    SELECT finding_id, model_id, source, since, $2, $2, 1, finding FROM told
    ON CONFLICT (finding_id) DO UPDATE SET
        since = CASE WHEN quality_findings.closed_at IS NULL
                     THEN least(quality_findings.since, EXCLUDED.since) ELSE EXCLUDED.since END,
        first_at = CASE WHEN quality_findings.closed_at IS NULL THEN quality_findings.first_at ELSE $2 END,
        times = CASE WHEN quality_findings.closed_at IS NULL THEN quality_findings.times + 1 ELSE 1 END,
        last_at = $2, finding = EXCLUDED.finding, closed_at = NULL, closed_for = ''
)
SELECT finding_id FROM told WHERE finding_id NOT IN (SELECT finding_id FROM before);

-- name: found
-- Reads findings of one model ($1; NULL: of all) last found at $2 or later, the newest first; closed ones if $3.
SELECT finding::text AS finding, since, first_at, last_at, times, closed_at, closed_for
FROM quality_findings
WHERE ($1::text IS NULL OR model_id = $1) AND last_at >= $2 AND ($3 OR closed_at IS NULL)
ORDER BY last_at DESC, finding_id
LIMIT $4;

-- name: close
-- Notes that a finding is over.
UPDATE quality_findings SET closed_at = $2, closed_for = $3
WHERE finding_id = $1 AND closed_at IS NULL
RETURNING finding_id;

-- name: forget
-- Removes findings last found before $1, at most $2.
WITH gone AS (
    SELECT finding_id FROM quality_findings WHERE last_at < $1 ORDER BY last_at LIMIT $2
), removed AS (
    DELETE FROM quality_findings WHERE finding_id IN (SELECT finding_id FROM gone) RETURNING 1
)
SELECT count(*) FROM removed;
