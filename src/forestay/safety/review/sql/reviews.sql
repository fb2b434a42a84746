-- name: waiting_of
-- Counts the refused inputs of one key that wait without an appeal, at most $2 of them.
SELECT count(*) FROM (
    SELECT FROM reviews WHERE key_id = $1 AND state <> 'decided' AND appealed_at IS NULL LIMIT $2
) AS waiting;

-- name: open
-- Opens an item once; a later attempt of the same request replaces what was stopped while nobody has decided.
INSERT INTO reviews (
    item_id, request_id, attempt, point, tenant_id, key_id, model_id, endpoint, policy_id, policy_version, verdict,
    category, place, reason, rules, sealed_id, opened_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15::text::jsonb, $16, $17)
ON CONFLICT (item_id) DO UPDATE
SET attempt = excluded.attempt, verdict = excluded.verdict, category = excluded.category, place = excluded.place,
    reason = excluded.reason, sealed_id = excluded.sealed_id
WHERE reviews.state <> 'decided' AND reviews.attempt < excluded.attempt
RETURNING item_id;

-- name: lock
-- Reads one item, by its id or its request's, the newest first, and keeps others from changing it.
SELECT *, EXISTS (SELECT FROM hash_reports h WHERE h.request_id = v.request_id::text) AS reportable
FROM reviews v WHERE item_id = $1 OR request_id = $2::uuid
ORDER BY position DESC LIMIT 1 FOR UPDATE OF v;

-- name: find
-- Reads one item by its id, its request's or its linked request's, the newest first.
SELECT *, EXISTS (SELECT FROM hash_reports h WHERE h.request_id = v.request_id::text) AS reportable
FROM reviews v WHERE item_id = $1 OR request_id = $2::uuid OR linked_id = $2::uuid
ORDER BY position DESC LIMIT 1;

-- name: votes
-- Reads the votes of an item, in order.
SELECT round, voter, is_person, ballot, reason, at FROM review_votes WHERE item_id = $1 ORDER BY vote_id;

-- name: list
-- Lists items, the oldest first, after position $7; `waiting` are all that are not decided.
SELECT *, EXISTS (SELECT FROM hash_reports h WHERE h.request_id = v.request_id::text) AS reportable
FROM reviews v
WHERE ($1::text IS NULL OR state = $1 OR ($1 = 'waiting' AND state <> 'decided'))
  AND ($2::text IS NULL OR point = $2) AND ($3::text IS NULL OR model_id = $3) AND ($4::text IS NULL OR tenant_id = $4)
  AND ($5::text IS NULL OR category = $5) AND ($6::boolean IS NULL OR (appealed_at IS NOT NULL) = $6)
  AND position > $7
ORDER BY position LIMIT $8;

-- name: appeals_of
-- Lists the appeals of a tenant, or of one key of it, newest first.
SELECT *, false AS reportable FROM reviews v
WHERE tenant_id = $1 AND ($2::text IS NULL OR key_id = $2) AND appealed_at IS NOT NULL
ORDER BY appealed_at DESC LIMIT $3;

-- name: add_vote
-- Adds a vote.
INSERT INTO review_votes (item_id, round, voter, is_person, ballot, reason, at) VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: write
-- Writes what an item has become.
UPDATE reviews
SET state = $2, escalated = $3, round = $4, claimed_by = $5, claimed_until = $6, outcome = $7, decided_at = $8,
    decided_by = $9, decided_reason = $10, appealed_at = $11, appealed_by = $12, appeal_words = $13, linked_id = $14,
    done_at = $15, due_at = $16, tries = 0, problem = ''
WHERE item_id = $1;

-- name: label
-- Keeps what people found, the latest word.
INSERT INTO review_labels (request_id, point, category, label, set_by, set_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (request_id, point) DO UPDATE
SET category = excluded.category, label = excluded.label, set_by = excluded.set_by, set_at = excluded.set_at;

-- name: labels
-- Reads labels after a position, in order.
SELECT request_id, point, category, label, set_by, set_at, position FROM review_labels
WHERE position > $1 ORDER BY position LIMIT $2;

-- name: event
-- Notes what is to be told.
INSERT INTO review_events (event_id, item_id, body) VALUES ($1, $2, $3::text::jsonb) ON CONFLICT DO NOTHING;

-- name: due
-- Takes decided items that were not carried out, oldest first, counts a try of each, and hides them for a while.
UPDATE reviews SET tries = tries + 1, due_at = now() + make_interval(secs => $2)
WHERE item_id IN (
    SELECT item_id FROM reviews WHERE state = 'decided' AND done_at IS NULL AND due_at <= now()
    ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
RETURNING *, false AS reportable;

-- name: done
-- Notes that a decision has been carried out, unless an appeal has come in between; with a problem it made no request.
UPDATE reviews SET done_at = $2, problem = $3, linked_id = CASE WHEN $3 = '' THEN linked_id END
WHERE item_id = $1 AND state = 'decided' AND done_at IS NULL AND linked_id IS NOT DISTINCT FROM $4::uuid
RETURNING item_id;

-- name: not_done
-- Notes why a decision could not be carried out.
UPDATE reviews SET problem = $2 WHERE item_id = $1 AND done_at IS NULL;

-- name: free
-- Lets others at items whose claims have run out.
UPDATE reviews
SET state = CASE WHEN escalated THEN 'escalated' ELSE 'open' END, claimed_by = NULL, claimed_until = NULL
WHERE state = 'claimed' AND claimed_until <= $1
RETURNING item_id;

-- name: stats
-- Tells how the queue stands, and how it was decided since a moment.
SELECT (SELECT count(*) FROM reviews WHERE state <> 'decided') AS waiting,
       (SELECT count(*) FROM reviews WHERE state <> 'decided' AND appealed_at IS NOT NULL) AS waiting_appeals,
       (SELECT min(opened_at) FROM reviews WHERE state <> 'decided') AS oldest_at,
       (SELECT count(*) FROM reviews WHERE outcome = 'released' AND decided_at >= $1) AS released,
       (SELECT count(*) FROM reviews WHERE outcome = 'upheld' AND decided_at >= $1) AS upheld,
       (SELECT count(*) FROM reviews WHERE outcome = 'lapsed' AND decided_at >= $1) AS lapsed,
       (SELECT percentile_cont(0.5) WITHIN GROUP (
            ORDER BY extract(epoch FROM decided_at - coalesce(appealed_at, opened_at)))
        FROM reviews WHERE outcome IN ('released', 'upheld') AND decided_at >= $1)::float8 AS median_seconds;

-- name: stale
-- Finds undecided items whose sealed copy is about to be forgotten; one that the law asks to report stays.
SELECT item_id FROM reviews v
WHERE state <> 'decided' AND opened_at < now() - make_interval(secs => $1) AND appealed_at IS NULL
  AND NOT EXISTS (SELECT FROM hash_reports h WHERE h.request_id = v.request_id::text)
  AND NOT EXISTS (SELECT FROM requests r WHERE r.request_id = v.request_id AND r.state = 'withheld')
ORDER BY position LIMIT $2;

-- name: without_item
-- Tells which of these requests have no item for their output.
SELECT i.request_id FROM unnest($1::uuid[]) AS i (request_id)
WHERE NOT EXISTS (SELECT FROM reviews v WHERE v.request_id = i.request_id AND v.point = 'output');

-- name: forget_words
-- Forgets what callers wrote, with the items' copies.
UPDATE reviews SET appeal_words = '' WHERE state = 'decided' AND appeal_words <> ''
  AND decided_at < now() - make_interval(secs => $1)
RETURNING item_id;
