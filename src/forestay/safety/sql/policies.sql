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

-- name: tenants
-- Reads which tenants have a policy of their own beside that of the model.
SELECT tenant_id, policy_id FROM safety_tenants ORDER BY tenant_id;

-- name: strengthen
-- Gives tenant $1 the policy $2; no row when it has that one already.
INSERT INTO safety_tenants (tenant_id, policy_id, reason, set_by) VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant_id) DO UPDATE
SET policy_id = excluded.policy_id, reason = excluded.reason, set_by = excluded.set_by, set_at = now()
WHERE safety_tenants.policy_id <> excluded.policy_id
RETURNING set_at AS at;

-- name: weaken
-- Takes tenant $1 its own policy; no row when it has none.
DELETE FROM safety_tenants WHERE tenant_id = $1 RETURNING now() AS at;

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
