-- name: after
-- Reads the requests of model $1 that ended after ($2, $3) = (finished at, request) and at least $4 seconds ago, in
-- order, at most $5. A session lasts as its caller likes: left out, and so are copies of a rollout's shadow.
SELECT request_id, endpoint, outcome, submitted_at, started_at, finished_at, device_seconds, work::text AS work,
       tenant_id
FROM request_facts
WHERE model_id = $1 AND lane <> 'realtime' AND (finished_at, request_id) > ($2::timestamptz, $3::uuid)
  AND traffic IS DISTINCT FROM 'shadow'
  AND finished_at < clock_timestamp() - make_interval(secs => $4)
ORDER BY finished_at, request_id LIMIT $5;
