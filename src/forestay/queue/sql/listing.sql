-- name: newest
-- Lists requests of model $1 (null: every model) in one of the states $2 (null: any), newest first, live ones included.
SELECT * FROM (
    (SELECT request_id, tenant_id, key_id, model_id, endpoint, state, attempt, submitted_at, revision_id, replica_id,
            NULL::text AS error, NULL::text AS error_type
     FROM requests
     WHERE ($1::text IS NULL OR model_id = $1) AND ($2::text[] IS NULL OR state = ANY ($2))
     ORDER BY request_id DESC LIMIT $3)
    UNION ALL
    (SELECT request_id, tenant_id, key_id, model_id, endpoint, state, attempt, submitted_at, revision_id, replica_id,
            error, error_type
     FROM finished_requests
     WHERE ($1::text IS NULL OR model_id = $1) AND ($2::text[] IS NULL OR state = ANY ($2))
     ORDER BY request_id DESC LIMIT $3)
) AS both_kinds
ORDER BY request_id DESC LIMIT $3;
