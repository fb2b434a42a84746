-- name: in_force
-- Reads the versions that are live or candidates.
SELECT p.policy_id, p.version, p.text, p.seal, p.reason, p.set_at, p.set_by
FROM safety_policies p JOIN safety_stages s USING (policy_id)
WHERE p.version = s.live OR p.version = s.candidate;

-- name: stages
-- Reads the stage of every policy that somebody has set.
SELECT policy_id, live, candidate, percent FROM safety_stages ORDER BY policy_id;

-- name: waivers
-- Reads the waivers that run.
SELECT waiver_id, detector_id, model_id, reason, until, set_by
FROM safety_waivers WHERE ended_at IS NULL AND until > now() ORDER BY until;

-- name: versions
-- Reads the versions of policy $1, newest first, at most $2.
SELECT policy_id, version, text, seal, reason, set_at, set_by
FROM safety_policies WHERE policy_id = $1 ORDER BY version DESC LIMIT $2;

-- name: lock
-- Locks the stage of policy $1, making the row of a policy that nobody has set yet.
INSERT INTO safety_stages (policy_id, live, percent, set_by) VALUES ($1, 0, 0, $2)
ON CONFLICT (policy_id) DO UPDATE SET policy_id = excluded.policy_id
RETURNING policy_id, live, candidate, percent;

-- name: newest
-- Reads the number of the newest version of policy $1.
SELECT coalesce(max(version), 0) FROM safety_policies WHERE policy_id = $1;

-- name: add
-- Adds a version.
INSERT INTO safety_policies (policy_id, version, text, seal, reason, set_by) VALUES ($1, $2, $3, $4, $5, $6)
RETURNING policy_id, version, text, seal, reason, set_at, set_by;

-- name: has
-- Tells whether version $2 of policy $1 is there.
SELECT 1 FROM safety_policies WHERE policy_id = $1 AND version = $2;

-- name: stage
-- Writes the stage of policy $1.
UPDATE safety_stages SET live = $2, candidate = $3, percent = $4, set_at = now(), set_by = $5 WHERE policy_id = $1
RETURNING set_at;

-- name: waive
-- Adds a waiver.
INSERT INTO safety_waivers (waiver_id, detector_id, model_id, reason, until, set_by) VALUES ($1, $2, $3, $4, $5, $6)
RETURNING set_at;

-- name: end_waiver
-- Ends waiver $1 if it runs.
UPDATE safety_waivers SET ended_at = now() WHERE waiver_id = $1 AND ended_at IS NULL AND until > now()
RETURNING ended_at, detector_id;
