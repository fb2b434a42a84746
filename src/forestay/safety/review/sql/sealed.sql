-- name: put_small
-- Keeps a small copy; a second time changes nothing.
INSERT INTO sealed (sealed_id, key_name, kind, request_id, tenant_id, data, size_bytes, held)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (sealed_id) DO NOTHING;

-- name: announce
-- Writes the row of a large copy before its bytes; tells whether the copy is there already.
INSERT INTO sealed (sealed_id, key_name, kind, request_id, tenant_id, held)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (sealed_id) DO UPDATE SET held = sealed.held OR excluded.held
RETURNING size_bytes;

-- name: arrived
-- The bytes of a large copy are stored, under this key.
UPDATE sealed SET size_bytes = $2, key_name = $3 WHERE sealed_id = $1;

-- name: find
-- Reads one copy.
SELECT sealed_id, key_name, kind, request_id, tenant_id, data, size_bytes, held, sealed_at
FROM sealed WHERE sealed_id = $1 AND size_bytes >= 0;

-- name: of_request
-- Lists the copies of one request and kind.
SELECT sealed_id, size_bytes FROM sealed WHERE request_id = $1 AND kind = $2 AND size_bytes >= 0 ORDER BY sealed_id;

-- name: read
-- Notes that somebody reads a copy: before it is given out.
INSERT INTO sealed_reads (sealed_id, item_id, actor, how, reason) VALUES ($1, $2, $3, $4, $5);

-- name: reads
-- Lists who read, newest first; of one item, or of all.
SELECT read_id, sealed_id, item_id, actor, how, reason, at FROM sealed_reads
WHERE ($1::text IS NULL OR item_id = $1) AND ($2::bigint = 0 OR read_id < $2)
ORDER BY read_id DESC LIMIT $3;

-- name: hold
-- Keeps copies of a request from being forgotten.
UPDATE sealed SET held = true WHERE request_id = $1 AND NOT held RETURNING sealed_id;

-- name: forget
-- Deletes copies older than that which nobody has to keep; tells which, and whether their bytes lie elsewhere. What is
-- appealed and not decided, or decided and not carried out, or reported by law, stays.
DELETE FROM sealed WHERE sealed_id IN (
    SELECT sealed_id FROM sealed s WHERE NOT held AND sealed_at < now() - make_interval(secs => $1)
      AND NOT EXISTS (SELECT FROM hash_reports h WHERE h.request_id = s.request_id)
      AND NOT EXISTS (
          SELECT FROM reviews v WHERE v.sealed_id = s.sealed_id AND (
              (v.state <> 'decided' AND v.appealed_at IS NOT NULL) OR (v.state = 'decided' AND v.done_at IS NULL)
              OR EXISTS (SELECT FROM requests r WHERE r.request_id = v.request_id AND r.state = 'withheld')
          )
      )
    ORDER BY sealed_at LIMIT $2
)
RETURNING sealed_id, data IS NULL AS elsewhere;
