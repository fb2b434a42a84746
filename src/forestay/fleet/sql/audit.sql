-- name: lock_head
-- Locks (or begins) the chain of writer $1 until the transaction ends, and reads its newest row.
INSERT INTO audit_heads (writer) VALUES ($1)
ON CONFLICT (writer) DO UPDATE SET writer = excluded.writer
RETURNING sequence, hash;

-- name: insert_row
-- Appends one sealed row.
INSERT INTO audit_log (writer, sequence, at, actor, action, subject, detail, reason, effect, previous, hash)
VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb, $8, $9, $10, $11);

-- name: move_head
-- Notes the chain's newest row.
UPDATE audit_heads SET sequence = $2, hash = $3 WHERE writer = $1;

-- name: select_newest
-- Reads rows, newest first; $1 null means every subject, $2 null means from the newest on.
SELECT writer, sequence, at, actor, action, subject, detail::text AS detail, reason, effect, previous, hash
FROM audit_log
WHERE ($1::text IS NULL OR subject = $1) AND ($2::timestamptz IS NULL OR at < $2)
ORDER BY at DESC, writer, sequence DESC LIMIT $3;

-- name: select_writers
-- Names every chain with its noted head.
SELECT coalesce(heads.writer, rows.writer) AS writer, heads.sequence, heads.hash
FROM audit_heads AS heads FULL JOIN (SELECT DISTINCT writer FROM audit_log) AS rows USING (writer)
ORDER BY 1;

-- name: select_chain
-- Reads one chain in order, a page at a time, after sequence $2.
SELECT writer, sequence, at, actor, action, subject, detail::text AS detail, reason, effect, previous, hash
FROM audit_log WHERE writer = $1 AND sequence > $2 ORDER BY sequence LIMIT $3;

-- name: select_recent
-- Reads the fleet actions decided in the last $1 seconds: what precedence and the removal cap look at.
SELECT at, subject, effect, detail::text AS detail FROM audit_log
WHERE at > now() - make_interval(secs => $1) AND action IN
    ('register_revision', 'set_routes', 'place', 'freeze', 'set_standing', 'lift_standing')
ORDER BY at, writer, sequence;

-- name: lock_checkpoints
-- Makes those who sign checkpoints take turns until their transactions end.
SELECT pg_advisory_xact_lock(4660002);

-- name: select_heads
-- Reads every chain's head in one snapshot; a chain that was only begun has none.
SELECT writer, sequence, hash FROM audit_heads WHERE sequence > 0 ORDER BY writer;

-- name: select_hashes_at
-- Reads the hashes of the rows at these places; no row comes back where there is none.
SELECT writer, sequence, hash FROM audit_log
JOIN unnest($1::text[], $2::bigint[]) AS asked (writer, sequence) USING (writer, sequence);
