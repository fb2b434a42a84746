-- name: insert
-- Keeps how something looks that we released; a second time changes nothing.
INSERT INTO fingerprints (hash, quality, request_id, model_id, revision_id, media_id, place, mark_id, made_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (media_id, place) DO NOTHING;

-- name: near
-- Finds what looks alike, exactly within 31 bits: one of sixteen parts has at most one bit turned, so that the index of
-- parts names every candidate.
SELECT * FROM (
    SELECT request_id, model_id, revision_id, media_id, place, mark_id, made_at, quality,
           bit_count(('x' || encode(hash, 'hex'))::bit(256) # ('x' || encode($1, 'hex'))::bit(256))::integer AS distance
    FROM fingerprints WHERE hash_tokens(hash) && $2::integer[]
) AS candidate
WHERE distance <= $3
ORDER BY distance, made_at LIMIT $4;

-- name: by_mark
-- Finds what a watermark names.
SELECT request_id, model_id, revision_id, media_id, place, mark_id, made_at, quality, 0 AS distance
FROM fingerprints WHERE mark_id = $1 ORDER BY made_at LIMIT $2;

-- name: forget
-- Deletes the oldest fingerprints made longer ago than that.
DELETE FROM fingerprints WHERE fingerprint_id IN (
    SELECT fingerprint_id FROM fingerprints WHERE made_at < now() - make_interval(secs => $1)
    ORDER BY fingerprint_id LIMIT $2
)
RETURNING fingerprint_id;
