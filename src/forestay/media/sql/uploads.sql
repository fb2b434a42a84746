-- name: begin
-- Announce an upload.
INSERT INTO multipart_uploads (upload_id, media_id, tenant_id, file_name, content_type, lifetime_seconds)
VALUES ($1, $2, $3, $4, $5, $6)
RETURNING upload_id, media_id, tenant_id, file_name, content_type, lifetime_seconds, created_at;

-- name: find
-- An announced upload that is younger than $2 seconds.
SELECT upload_id, media_id, tenant_id, file_name, content_type, lifetime_seconds, created_at
FROM multipart_uploads
WHERE upload_id = $1 AND created_at > now() - make_interval(secs => $2::float8);

-- name: size_without
-- Bytes held by the parts of an upload, not counting part $2, which is about to be replaced.
SELECT coalesce(sum(size_bytes), 0)::bigint FROM multipart_parts WHERE upload_id = $1 AND part_number <> $2;

-- name: put_part
-- Record a stored part; returns the etag of the one it replaces, whose object may then be deleted.
WITH former AS (SELECT etag FROM multipart_parts WHERE upload_id = $1 AND part_number = $2)
INSERT INTO multipart_parts (upload_id, part_number, etag, size_bytes)
VALUES ($1, $2, $3, $4)
ON CONFLICT (upload_id, part_number) DO UPDATE SET etag = excluded.etag, size_bytes = excluded.size_bytes
RETURNING (SELECT etag FROM former) AS former_etag;

-- name: parts
-- The recorded parts of an upload, in order.
SELECT part_number, etag, size_bytes FROM multipart_parts WHERE upload_id = $1 ORDER BY part_number;

-- name: mark_completed
-- The file is published: its parts may go after a while in which the client may still repeat its call.
UPDATE multipart_uploads SET completed_at = coalesce(completed_at, now()) WHERE upload_id = $1;

-- name: stale
-- Uploads older than $2 seconds, or completed more than $3 seconds ago.
SELECT upload_id, media_id FROM multipart_uploads
WHERE created_at < now() - make_interval(secs => $2::float8)
   OR completed_at < now() - make_interval(secs => $3::float8)
ORDER BY created_at LIMIT $1;

-- name: delete_uploads
-- Forget uploads (their parts' rows go along).
DELETE FROM multipart_uploads WHERE upload_id = ANY ($1::text[]);

-- name: published_keys
-- The objects that published files use, of these media.
SELECT object_key FROM media WHERE media_id = ANY ($1::text[]);
