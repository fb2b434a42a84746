-- name: adjust
-- Takes the minutes from $2 to before $3 out of the budget of an SLO ($1), or gives back $7 bad events where that is above 0; nothing where those minutes were adjusted already.
INSERT INTO slo_adjustments (slo_id, first_minute, until_minute, by, reason, at, forgiven)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING RETURNING number;

-- name: withdraw
-- Puts the minutes of an adjustment ($1) back, by $2 at $3; nothing where that was done.
UPDATE slo_adjustments SET withdrawn_by = $2, withdrawn_at = $3
WHERE number = $1 AND withdrawn_at IS NULL RETURNING slo_id;

-- name: in_force
-- Reads the adjustments in force that end after the minute $1, oldest first.
SELECT slo_id, first_minute, until_minute, by, reason, at, forgiven FROM slo_adjustments
WHERE withdrawn_at IS NULL AND until_minute > $1 ORDER BY number LIMIT $2;

-- name: adjustments
-- Reads the newest adjustments, of one SLO ($1) or all.
SELECT number, slo_id, first_minute, until_minute, by, reason, at, withdrawn_by, withdrawn_at, forgiven
FROM slo_adjustments
WHERE $1::text IS NULL OR slo_id = $1 ORDER BY number DESC LIMIT $2;

-- name: standing
-- Reads the newest decision of every SLO, of one subject ($1) or all.
SELECT DISTINCT ON (slo_id) slo_id, subject, action, left_ratio, reason, minute, decided_at FROM slo_decisions
WHERE $1::text IS NULL OR subject = $1 ORDER BY slo_id, minute DESC;

-- name: decide
-- Keeps a decision where $8 is what stands before it: of two controllers, or of one that judges again, one writes.
INSERT INTO slo_decisions (slo_id, minute, subject, action, left_ratio, reason, decided_at)
SELECT $1, $2, $3, $4, $5, $6, $7
WHERE coalesce((SELECT action FROM slo_decisions WHERE slo_id = $1 ORDER BY minute DESC LIMIT 1), 'none') = $8
ON CONFLICT DO NOTHING;

-- name: decisions
-- Reads the newest decisions, of one SLO ($1) or all.
SELECT slo_id, subject, action, left_ratio, reason, minute, decided_at FROM slo_decisions
WHERE $1::text IS NULL OR slo_id = $1 ORDER BY minute DESC, slo_id LIMIT $2;
