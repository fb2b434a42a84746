-- name: costs_after
-- Reads what requests took that succeeded, in the order of ($1, $2) = (finished at, request), older than $3 seconds; of
-- queued ones their attempts, of direct calls themselves, at most $4. A session lasts as its caller likes: left out.
SELECT * FROM (
    (
        SELECT finished_at, request_id, tenant_id, model_id, revision_id, endpoint, device_seconds, started_at, work
        FROM attempt_facts
        WHERE outcome = 'succeeded' AND revision_id IS NOT NULL AND started_at IS NOT NULL
          AND (finished_at, request_id) > ($1::timestamptz, $2::uuid)
          AND finished_at < clock_timestamp() - make_interval(secs => $3)
        ORDER BY finished_at, request_id LIMIT $4
    )
    UNION ALL
    (
        SELECT finished_at, request_id, tenant_id, model_id, revision_id, endpoint, device_seconds, started_at, work
        FROM request_facts
        WHERE lane IN ('direct', 'stream') AND outcome = 'succeeded' AND revision_id IS NOT NULL
          AND started_at IS NOT NULL AND (finished_at, request_id) > ($1::timestamptz, $2::uuid)
          AND finished_at < clock_timestamp() - make_interval(secs => $3)
        ORDER BY finished_at, request_id LIMIT $4
    )
) AS costs
ORDER BY finished_at, request_id LIMIT $4;
