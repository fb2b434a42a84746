-- name: claim
-- Takes up to $1 due events, oldest first, counts a try of each, and hides them for $2 seconds.
UPDATE review_events SET tries = tries + 1, due_at = now() + make_interval(secs => $2)
WHERE event_id IN (
    SELECT event_id FROM review_events WHERE state = 'pending' AND due_at <= now()
    ORDER BY due_at, position LIMIT $1 FOR UPDATE SKIP LOCKED
)
RETURNING event_id, body, tries;

-- name: settle
-- Writes what followed from try $2; a later try's claim has another number and is left alone.
UPDATE review_events
SET state = $3, due_at = coalesce($4::timestamptz, due_at), last_status = $5, last_error = $6
WHERE event_id = $1 AND tries = $2 AND state = 'pending'
RETURNING event_id;

-- name: list
-- Lists events of one state, newest first.
SELECT event_id, item_id, state, tries, due_at, last_status, last_error, made_at
FROM review_events WHERE state = $1 ORDER BY position DESC LIMIT $2;

-- name: revive
-- Makes a dead event due now, with all its tries.
UPDATE review_events SET state = 'pending', tries = 0, due_at = now() WHERE event_id = $1 AND state = 'dead'
RETURNING event_id;

-- name: forget
-- Deletes delivered and dead events made longer than $1 seconds ago, at most $2.
DELETE FROM review_events WHERE event_id IN (
    SELECT event_id FROM review_events
    WHERE state <> 'pending' AND made_at < now() - make_interval(secs => $1) ORDER BY position LIMIT $2
)
RETURNING event_id;
