-- name: newest
-- Lists requests of model $1 (null: every model) in one of the states $2 (null: any) with all of the tags $4 (null:
-- whatever tags), newest first, live ones included.
SELECT * FROM (
    (SELECT request_id, tenant_id, key_id, model_id, endpoint, state, attempt, submitted_at, revision_id, replica_id,
            NULL::text AS error, NULL::text AS error_type, i.tags
     FROM requests
     LEFT JOIN LATERAL (
         SELECT x.options::jsonb -> 'tags' AS tags FROM request_inputs x
         WHERE x.request_id = requests.request_id AND strpos(x.options, '"tags":{"') > 0
     ) AS i ON true
     WHERE ($1::text IS NULL OR model_id = $1) AND ($2::text[] IS NULL OR state = ANY ($2))
       AND ($4::jsonb IS NULL OR i.tags @> $4)
     ORDER BY request_id DESC LIMIT $3)
    UNION ALL
    (SELECT request_id, tenant_id, key_id, model_id, endpoint, state, attempt, submitted_at, revision_id, replica_id,
            error, error_type, tags
     FROM finished_requests
     WHERE ($1::text IS NULL OR model_id = $1) AND ($2::text[] IS NULL OR state = ANY ($2))
       AND ($4::jsonb IS NULL OR tags @> $4)
     ORDER BY request_id DESC LIMIT $3)
) AS both_kinds
ORDER BY request_id DESC LIMIT $3;

-- name: inputs
-- Reads the inputs of ended requests, without those whose callers forbade that anything is kept (X-Fal-Store-IO: 0).
SELECT request_id, tenant_id, input AS body FROM finished_requests WHERE request_id = ANY ($1) AND NOT ephemeral;
