-- name: select_rules
-- Reads every rule.
SELECT scope, subject, kind, amount, burst FROM limit_rules ORDER BY scope, subject, kind;

-- name: version
-- Reads the version of the rules.
SELECT version FROM limit_version;

-- name: beat
-- Says that gateway $1 is there; returns the version of the rules and how many gateways were seen within $2 seconds.
WITH me AS (
    INSERT INTO gateways_seen (gateway_id, seen_at) VALUES ($1, now())
    ON CONFLICT (gateway_id) DO UPDATE SET seen_at = now()
)
SELECT (SELECT version FROM limit_version) AS version,
       1 + (SELECT count(*) FROM gateways_seen
            WHERE gateway_id <> $1 AND seen_at > now() - make_interval(secs => $2)) AS gateways;

-- name: leave
-- Forgets a gateway that stops.
DELETE FROM gateways_seen WHERE gateway_id = $1;

-- name: bump
-- Notes that a rule changed; every change of a rule waits here for the one before it.
UPDATE limit_version SET version = version + 1;

-- name: put
-- Sets one rule.
INSERT INTO limit_rules (scope, subject, kind, amount, burst) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (scope, subject, kind) DO UPDATE
SET amount = excluded.amount, burst = excluded.burst, updated_at = now();

-- name: remove
-- Removes the rules of one subject: those of the kinds $3, or all when it is null; returns what they were.
DELETE FROM limit_rules WHERE scope = $1 AND subject = $2 AND ($3::text[] IS NULL OR kind = ANY ($3))
RETURNING kind, amount, burst;
