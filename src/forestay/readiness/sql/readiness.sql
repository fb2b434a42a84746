-- name: waive
-- Stores a waiver instead of the one for the same item.
INSERT INTO readiness_waivers (model_id, item, owner, reason, until, given_by) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (model_id, item) DO UPDATE
SET owner = excluded.owner, reason = excluded.reason, until = excluded.until, given_by = excluded.given_by,
    given_at = now();

-- name: waivers
-- Reads the waivers of a model.
SELECT item, owner, reason, until FROM readiness_waivers WHERE model_id = $1 ORDER BY item;

-- name: admit
-- Notes who let a model in, and with which card.
INSERT INTO readiness (model_id, admitted_at, admitted_by, card, ready, reviewed_at)
VALUES ($1, $2, $3, $4::text::jsonb, true, $2)
ON CONFLICT (model_id) DO UPDATE
SET admitted_at = excluded.admitted_at, admitted_by = excluded.admitted_by, card = excluded.card, ready = true,
    reviewed_at = excluded.reviewed_at, unready_since = NULL;

-- name: keep
-- Keeps the newest card of a model; one that has been let in and is ready no more tells since when.
INSERT INTO readiness (model_id, card, ready, reviewed_at, unready_since)
VALUES ($1, $2::text::jsonb, $3::boolean, $4::timestamptz, CASE WHEN $3::boolean THEN NULL ELSE $4::timestamptz END)
ON CONFLICT (model_id) DO UPDATE
SET card = excluded.card, ready = excluded.ready, reviewed_at = excluded.reviewed_at,
    unready_since = CASE WHEN excluded.ready THEN NULL ELSE coalesce(readiness.unready_since, excluded.unready_since) END;

-- name: standings
-- Reads how every model stands that was ever reviewed.
SELECT model_id, admitted_at, admitted_by, ready, reviewed_at, unready_since FROM readiness;

-- name: standing
-- Reads how a model stands.
SELECT admitted_at, admitted_by, ready, reviewed_at, unready_since FROM readiness WHERE model_id = $1;
