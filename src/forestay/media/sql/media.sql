-- name: announce
-- Write the row of a file whose bytes are about to arrive; it expires in a day unless `arrived` follows.
INSERT INTO media (media_id, object_key, tenant_id, request_id, attempt, file_name, content_type, size_bytes, state,
                   expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, -1, 'quarantine', now() + interval '1 day');

-- name: arrived
-- The bytes are stored: set size, type and state, and start the file's lifetime (null: no end).
UPDATE media
SET size_bytes = $2, content_type = $3, state = $4, expires_at = now() + make_interval(secs => $5::float8)
WHERE media_id = $1
RETURNING media_id, object_key, tenant_id, file_name, content_type, size_bytes, state, created_at, expires_at;

-- name: forget_announced
-- The bytes never arrived whole: drop the row.
DELETE FROM media WHERE media_id = $1 AND size_bytes = -1;

-- name: publish_upload
-- An upload is stored under $2: the first writer wins, a later one finds the row taken and gets nothing back.
INSERT INTO media (media_id, object_key, tenant_id, file_name, content_type, size_bytes, state, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, 'released', now() + make_interval(secs => $7::float8))
ON CONFLICT (media_id) DO NOTHING
RETURNING media_id, object_key, tenant_id, file_name, content_type, size_bytes, state, created_at, expires_at;

-- name: find
-- One file that has arrived and has not expired.
SELECT media_id, object_key, tenant_id, file_name, content_type, size_bytes, state, created_at, expires_at, request_id
FROM media
WHERE media_id = $1 AND size_bytes >= 0 AND state <> 'deleted' AND (expires_at IS NULL OR expires_at > now());

-- name: expired
-- Files past their end, and quarantine that no finish released within $2 seconds (its attempt was lost); what a person
-- still has to look at is neither.
(SELECT media_id, object_key FROM media WHERE expires_at <= now() AND state <> 'deleted' ORDER BY expires_at LIMIT $1)
UNION
(SELECT media_id, object_key FROM media
 WHERE state = 'quarantine' AND created_at < now() - make_interval(secs => $2::float8)
   AND NOT EXISTS (SELECT FROM requests r WHERE r.request_id = media.request_id AND r.state = 'withheld')
   AND NOT EXISTS (SELECT FROM reviews v WHERE v.request_id = media.request_id AND v.done_at IS NULL)
 ORDER BY created_at LIMIT $1)
LIMIT $1;

-- name: keys
-- Where the bytes of these files lie.
SELECT object_key FROM media WHERE media_id = ANY ($1::text[]);

-- name: release
-- Let quarantined files be read, of these requests alone: an answer may name files that others made.
UPDATE media SET state = 'released'
WHERE media_id = ANY ($1::text[]) AND request_id = ANY ($2::uuid[]) AND state = 'quarantine';

-- name: of_request
-- Lists the files that a request made and that have arrived, whatever their state.
SELECT media_id, object_key, tenant_id, file_name, content_type, size_bytes, state, created_at, expires_at
FROM media WHERE request_id = $1 AND size_bytes >= 0 AND state <> 'deleted' ORDER BY created_at, media_id LIMIT $2;

-- name: withhold
-- Shuts released files again.
UPDATE media SET state = 'quarantine' WHERE media_id = ANY ($1::text[]) AND state = 'released';

-- name: delete_rows
-- Forget files whose bytes are gone.
DELETE FROM media WHERE media_id = ANY ($1::text[]);
