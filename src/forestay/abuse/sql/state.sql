-- name: load
-- Reads the whole snapshot.
SELECT part, data FROM abuse_state;

-- name: parts
-- Reads the parts named in $1.
SELECT part, data FROM abuse_state WHERE part = ANY($1::text[]);

-- name: meta
-- Reads the part that says how far the snapshot goes: enough to see whether another process has written since.
SELECT data FROM abuse_state WHERE part = 'meta';

-- name: save
-- Writes one part.
INSERT INTO abuse_state (part, data) VALUES ($1, $2)
ON CONFLICT (part) DO UPDATE SET data = excluded.data, saved_at = now();

-- name: rules
-- Reads the rules in force; no row comes back where nobody has set any.
SELECT version, text, set_at, set_by FROM abuse_rules ORDER BY version DESC LIMIT 1;

-- name: set_rules
-- Puts rules in force; older ones stay to be read.
INSERT INTO abuse_rules (text, set_by) VALUES ($1, $2) RETURNING version, text, set_at, set_by;
