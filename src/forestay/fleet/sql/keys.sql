-- name: insert_tenant
-- Adds a tenant; no row comes back when the id is taken.
INSERT INTO tenants (tenant_id, name, created_at) VALUES ($1, $2, now())
ON CONFLICT (tenant_id) DO NOTHING
RETURNING tenant_id, name, created_at;

-- name: select_tenants
-- Lists tenants in order of their ids.
SELECT tenant_id, name, created_at FROM tenants ORDER BY tenant_id LIMIT $1;

-- name: select_tenant
-- Reads one tenant.
SELECT tenant_id, name, created_at FROM tenants WHERE tenant_id = $1;

-- name: insert_key
-- Adds a key for an existing tenant; no row comes back when there is no such tenant.
INSERT INTO keys (key_id, tenant_id, name, secret_hash, secret_form, scopes, expires_at, grants, networks, privileges,
    successor_of)
SELECT $1, tenant_id, $3, $4, $5, $6::text[], $7::timestamptz, $8::text::jsonb, $9::text[], $10::text[], $11::text
FROM tenants WHERE tenant_id = $2
RETURNING key_id, tenant_id, name, secret_hash, secret_form, scopes, created_at, expires_at, revoked_at, last_used_at,
    grants, networks, privileges, successor_of;

-- name: select_keys
-- Lists keys, newest first; $1 null means every tenant.
SELECT key_id, tenant_id, name, secret_hash, secret_form, scopes, created_at, expires_at, revoked_at, last_used_at,
    grants, networks, privileges, successor_of
FROM keys WHERE $1::text IS NULL OR tenant_id = $1 ORDER BY created_at DESC, key_id LIMIT $2;

-- name: select_key
-- Reads one key.
SELECT key_id, tenant_id, name, secret_hash, secret_form, scopes, created_at, expires_at, revoked_at, last_used_at,
    grants, networks, privileges, successor_of
FROM keys WHERE key_id = $1;

-- name: lock_key
-- Reads one key and keeps it from changing until the transaction ends.
SELECT key_id, tenant_id, name, secret_hash, secret_form, scopes, created_at, expires_at, revoked_at, last_used_at,
    grants, networks, privileges, successor_of
FROM keys WHERE key_id = $1 FOR UPDATE;

-- name: has_successor
-- Tells whether a successor of key $1 stands.
SELECT EXISTS (SELECT FROM keys WHERE successor_of = $1 AND revoked_at IS NULL);

-- name: revoke_key
-- Revokes a key for good; revoking it again keeps the first moment.
UPDATE keys SET revoked_at = coalesce(revoked_at, now()) WHERE key_id = $1
RETURNING key_id, tenant_id, name, secret_hash, secret_form, scopes, created_at, expires_at, revoked_at, last_used_at,
    grants, networks, privileges, successor_of;

-- name: expire_key
-- Lets a key expire $2 seconds from now, unless it expires earlier anyway.
UPDATE keys SET expires_at = least(expires_at, now() + make_interval(secs => $2)), changed_at = now()
WHERE key_id = $1
RETURNING key_id, tenant_id, name, secret_hash, secret_form, scopes, created_at, expires_at, revoked_at, last_used_at,
    grants, networks, privileges, successor_of;

-- name: select_changed_since
-- Names the keys revoked or changed in the last $1 seconds: what every key ring asks each second.
SELECT key_id FROM keys WHERE revoked_at > now() - make_interval(secs => $1)
UNION
SELECT key_id FROM keys WHERE changed_at > now() - make_interval(secs => $1);

-- name: rehash_key
-- Replaces the hash of a key's secret, unless it is no longer the one that was read ($2).
UPDATE keys SET secret_hash = $3, secret_form = $4 WHERE key_id = $1 AND secret_hash = $2 RETURNING key_id;

-- name: mark_used
-- Notes when keys were last used, in one statement, in order of id so that two gateways cannot deadlock.
UPDATE keys SET last_used_at = greatest(keys.last_used_at, used.at)
FROM (
    SELECT keys.key_id, batch.at
    FROM unnest($1::text[], $2::timestamptz[]) AS batch (key_id, at)
    JOIN keys USING (key_id)
    ORDER BY keys.key_id FOR UPDATE OF keys
) AS used
WHERE keys.key_id = used.key_id;
