-- name: open_case
-- Opens a case once, however often the same match is seen.
INSERT INTO hash_reports (case_id, entry_id, bank_id, category, distance, request_id, tenant_id, place, state, matched_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'matched', $9)
ON CONFLICT DO NOTHING
RETURNING case_id;

-- name: claim
-- Takes due cases, oldest first, counts a try of each, and hides them for a while: whoever dies with one loses nothing.
UPDATE hash_reports SET tries = tries + 1, due_at = now() + make_interval(secs => $2)
WHERE case_id IN (
    SELECT case_id FROM hash_reports
    WHERE state IN ('matched', 'blocked', 'preserved') AND due_at <= now()
    ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
RETURNING case_id, entry_id, bank_id, category, distance, request_id, tenant_id, place, state, sealed_id, tries, due_at,
          matched_at;

-- name: settle
-- Writes what a step came to, fenced by the number of its try and the state that it began in; a new step counts anew.
UPDATE hash_reports
SET state = $4, due_at = $5, problem = $6, sealed_id = $7, proof = coalesce($8::text::jsonb, proof),
    tries = CASE WHEN state = $4 THEN tries ELSE 0 END
WHERE case_id = $1 AND tries = $2 AND state = $3
RETURNING case_id;

-- name: select_cases
-- Lists cases, newest first.
SELECT case_id, entry_id, bank_id, category, distance, request_id, tenant_id, place, state, sealed_id, tries, due_at,
       matched_at, proof, problem
FROM hash_reports WHERE $1::text IS NULL OR state = $1
ORDER BY matched_at DESC LIMIT $2;

-- name: try_again
-- Lets an undelivered case be told anew.
UPDATE hash_reports SET state = 'preserved', tries = 0, due_at = now() WHERE case_id = $1 AND state = 'undelivered'
RETURNING case_id;
