-- name: sampled
-- Reads released outputs of queued requests that ended in [$1, $2) and are in the sample of seed $3: those whose hash is below $4 of 2^32, in its order.
SELECT r.request_id, r.model_id, r.tenant_id, r.finished_at AS released_at, coalesce(v.verdict, '') AS verdict,
       coalesce(v.policy_id, '') AS policy_id, coalesce(v.policy_version, 0) AS policy_version
FROM request_facts r
LEFT JOIN LATERAL (
    SELECT verdict, policy_id, policy_version FROM verdict_facts
    WHERE request_id = r.request_id AND NOT shadow AND point = 'output' ORDER BY at DESC LIMIT 1
) AS v ON true
WHERE r.finished_at >= $1 AND r.finished_at < $2 AND r.lane = 'queue' AND r.outcome = 'succeeded'
  AND r.traffic = 'caller' AND coalesce(v.verdict, 'allow') IN ('allow', 'flag')
  AND ('x' || substr(md5($3 || r.request_id::text), 1, 8))::bit(32)::bigint < $4
ORDER BY md5($3 || r.request_id::text) LIMIT $5;

-- name: sampled_one
-- Reads one request as `sampled` does; nothing where it is not in the sample.
SELECT r.request_id, r.model_id, r.tenant_id, r.finished_at AS released_at, coalesce(v.verdict, '') AS verdict,
       coalesce(v.policy_id, '') AS policy_id, coalesce(v.policy_version, 0) AS policy_version
FROM request_facts r
LEFT JOIN LATERAL (
    SELECT verdict, policy_id, policy_version FROM verdict_facts
    WHERE request_id = r.request_id AND NOT shadow AND point = 'output' ORDER BY at DESC LIMIT 1
) AS v ON true
WHERE r.request_id = $1 AND r.finished_at >= $2 AND r.lane = 'queue' AND r.outcome = 'succeeded'
  AND r.traffic = 'caller' AND coalesce(v.verdict, 'allow') IN ('allow', 'flag')
  AND ('x' || substr(md5($3 || r.request_id::text), 1, 8))::bit(32)::bigint < $4;

-- name: labelled
-- Tells which of these requests ($1) were looked at.
SELECT request_id FROM safety_audits WHERE request_id = ANY ($1::uuid[]);

-- name: label
-- Keeps what somebody found in a released output; nothing where it was looked at already.
INSERT INTO safety_audits (
    request_id, model_id, tenant_id, policy_id, policy_version, released_at, wrong, by, reason, labelled_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT DO NOTHING RETURNING request_id;

-- name: counts
-- Counts what was found in outputs released from $1 on, before $4 unless null, of one model ($2) and tenant ($3) unless null.
SELECT count(*) FILTER (WHERE NOT wrong) AS "right", count(*) FILTER (WHERE wrong) AS wrong
FROM safety_audits
WHERE released_at >= $1 AND ($4::timestamptz IS NULL OR released_at < $4)
  AND ($2::text IS NULL OR model_id = $2) AND ($3::text IS NULL OR tenant_id = $3);
