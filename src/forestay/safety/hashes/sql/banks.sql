-- name: tick
-- Moves the clock of changes on; the row stays locked until the transaction ends.
UPDATE hash_clock SET version = version + 1 RETURNING version;

-- name: insert_bank
-- Makes a bank; no row comes back when there is one of that name.
INSERT INTO hash_banks (bank_id, source, category, threshold, hint, enabled_ratio, added_by, changed)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (bank_id) DO NOTHING
RETURNING bank_number, bank_id, source, category, threshold, hint, enabled_ratio, added_by, added_at;

-- name: select_banks
-- Lists banks by name, with how many entries they hold.
SELECT b.bank_number, b.bank_id, b.source, b.category, b.threshold, b.hint, b.enabled_ratio, b.added_by, b.added_at,
       count(e.entry_id) FILTER (WHERE e.removed_at IS NULL) AS entries,
       count(e.entry_id) FILTER (WHERE e.removed_at IS NULL AND e.suspended_at IS NOT NULL) AS suspended
FROM hash_banks b LEFT JOIN hash_entries e USING (bank_number)
WHERE $1::text IS NULL OR b.bank_id = $1
GROUP BY b.bank_number
ORDER BY b.bank_id;

-- name: set_ratio
-- Sets the share of contents that a bank is asked about.
UPDATE hash_banks SET enabled_ratio = $2, changed = $3 WHERE bank_id = $1
RETURNING bank_number, bank_id, source, category, threshold, hint, enabled_ratio, added_by, added_at;

-- name: insert_entries
-- Adds hashes to a bank; those that it holds already are left as they are.
INSERT INTO hash_entries (bank_number, hash, threshold, note, added_by, changed)
SELECT $1, item.hash, item.threshold, item.note, $5, $6
FROM unnest($2::bytea[], $3::smallint[], $4::text[]) AS item (hash, threshold, note)
ON CONFLICT (bank_number, hash) WHERE removed_at IS NULL DO NOTHING
RETURNING entry_id;

-- name: remove_entries
-- Takes hashes out of a bank.
UPDATE hash_entries SET removed_at = now(), removed_by = $3, changed = $4
WHERE bank_number = $1 AND hash = ANY ($2::bytea[]) AND removed_at IS NULL
RETURNING entry_id;

-- name: select_entries
-- Reads a page of a bank's living entries in the order of their ids.
SELECT e.entry_id, e.bank_number, e.hash, e.threshold, e.note, e.added_by, e.added_at, e.removed_at IS NOT NULL AS removed,
       e.suspended_reason, e.changed
FROM hash_entries e JOIN hash_banks b USING (bank_number)
WHERE b.bank_id = $1 AND e.removed_at IS NULL AND e.entry_id > $2
ORDER BY e.entry_id LIMIT $3;

-- name: select_changed_banks
-- Reads the banks that changed after a version.
SELECT bank_number, bank_id, source, category, threshold, hint, enabled_ratio, added_by, added_at, changed
FROM hash_banks WHERE changed > $1;

-- name: select_changed_entries
-- Reads a page of entries that changed after a version and entry, in the order of their changes.
SELECT entry_id, bank_number, hash, threshold, note, added_by, added_at, removed_at IS NOT NULL AS removed,
       suspended_reason, changed
FROM hash_entries WHERE (changed, entry_id) > ($1, $2)
ORDER BY changed, entry_id LIMIT $3;

-- name: suspend_entry
-- Keeps an entry from blocking; no row comes back when it is suspended or removed already.
UPDATE hash_entries SET suspended_at = now(), suspended_reason = $2, changed = $3
WHERE entry_id = $1 AND suspended_at IS NULL AND removed_at IS NULL
RETURNING bank_number;

-- name: restore_entry
-- Lets a suspended entry block again.
UPDATE hash_entries SET suspended_at = NULL, suspended_reason = NULL, changed = $2
WHERE entry_id = $1 AND suspended_at IS NOT NULL AND removed_at IS NULL
RETURNING bank_number;

-- name: match
-- Reads every living entry of enabled banks within its distance of a hash: all rows are read, so this is for people.
SELECT * FROM (
    SELECT e.entry_id, b.bank_id, b.category, b.hint, e.suspended_reason, encode(e.hash, 'hex') AS hash,
           bit_count(('x' || encode(e.hash, 'hex'))::bit(256) # ('x' || $1::text)::bit(256))::integer AS distance,
           least(e.threshold, b.threshold) AS threshold
    FROM hash_entries e JOIN hash_banks b USING (bank_number)
    WHERE e.removed_at IS NULL AND b.enabled_ratio > 0
) AS near
WHERE distance <= threshold
ORDER BY distance, entry_id LIMIT 100;
