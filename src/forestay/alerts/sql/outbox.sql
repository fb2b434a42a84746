-- name: put
-- Keeps a notification to be sent; one that is there already (decided twice) is left as it is.
INSERT INTO alert_notifications (notification_id, receiver, group_key, body, next_try_at, created_at)
VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT (notification_id) DO NOTHING RETURNING notification_id;

-- name: claim
-- Claims up to $2 notifications due at $1 for $3 seconds, $4 a receiver, none of receivers $5; counts the try. Of one
-- receiver and group only the oldest that waits is taken, so that an end never overtakes its beginning.
WITH first AS (
    SELECT DISTINCT ON (receiver, group_key) notification_id, receiver, next_try_at
    FROM alert_notifications
    WHERE state = 'pending' AND receiver <> ALL ($5::text[])
    ORDER BY receiver, group_key, position
), chosen AS (
    SELECT notification_id, next_try_at,
           row_number() OVER (PARTITION BY receiver ORDER BY next_try_at, notification_id) AS place
    FROM first WHERE next_try_at <= $1
), locked AS (
    SELECT n.notification_id
    FROM alert_notifications n
    JOIN chosen c ON c.notification_id = n.notification_id AND c.place <= $4
    WHERE n.state = 'pending' AND n.next_try_at <= $1
    ORDER BY c.next_try_at
    LIMIT $2
    FOR UPDATE OF n SKIP LOCKED
)
UPDATE alert_notifications n
SET tries = tries + 1, next_try_at = $1 + make_interval(secs => $3::float8)
FROM locked
WHERE n.notification_id = locked.notification_id
RETURNING n.notification_id, n.receiver, n.group_key, n.body, n.tries;

-- name: settle
-- Writes what followed from try $2; a later try's claim has another number and is left alone.
UPDATE alert_notifications
SET state = $3, next_try_at = coalesce($4::timestamptz, next_try_at), last_error = $5,
    delivered_at = CASE WHEN $3 = 'delivered' THEN $6::timestamptz END
WHERE notification_id = $1 AND tries = $2 AND state = 'pending'
RETURNING notification_id;

-- name: next_due
-- Reads when the next notification may be sent.
SELECT min(next_try_at) AS at FROM (
    SELECT DISTINCT ON (receiver, group_key) next_try_at
    FROM alert_notifications WHERE state = 'pending' ORDER BY receiver, group_key, position
) first;

-- name: stuck
-- Counts notifications that are due since before $1 and were never tried: nobody sends.
SELECT count(*) AS stuck FROM (
    SELECT DISTINCT ON (receiver, group_key) next_try_at, tries
    FROM alert_notifications WHERE state = 'pending' ORDER BY receiver, group_key, position
) first WHERE tries = 0 AND next_try_at < $1;

-- name: dead_since
-- Counts, for each receiver, the notifications given up that were decided since $1.
SELECT receiver, count(*)::int AS dead FROM alert_notifications
WHERE state = 'dead' AND created_at >= $1 GROUP BY receiver ORDER BY receiver;

-- name: list
-- Lists notifications in state $1 (null: any), newest first, at most $2.
SELECT notification_id, receiver, group_key, body, state, tries, next_try_at, last_error, created_at, delivered_at
FROM alert_notifications WHERE $1::text IS NULL OR state = $1 ORDER BY created_at DESC, position DESC LIMIT $2;

-- name: named
-- Reads the notifications of ids $1.
SELECT notification_id, receiver, group_key, body, state, tries, next_try_at, last_error, created_at, delivered_at
FROM alert_notifications WHERE notification_id = ANY ($1::text[]) ORDER BY receiver;

-- name: revive
-- Makes a dead notification due at $2, with all its tries again; no row comes back when it is not dead.
UPDATE alert_notifications SET state = 'pending', tries = 0, next_try_at = $2, last_error = NULL
WHERE notification_id = $1 AND state = 'dead' RETURNING notification_id;

-- name: forget
-- Deletes up to $2 notifications decided before $1 that are delivered or dead.
DELETE FROM alert_notifications WHERE notification_id IN (
    SELECT notification_id FROM alert_notifications WHERE state <> 'pending' AND created_at < $1 LIMIT $2
) RETURNING notification_id;
