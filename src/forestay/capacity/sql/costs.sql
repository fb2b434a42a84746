-- name: cursor
-- Reads up to which fact costs have been learned.
SELECT finished_at, request_id FROM cost_cursor;

-- name: models
-- Reads every cost model as learning left it.
SELECT model_id, revision_id, endpoint, updated_at, state -> 'model' AS state FROM cost_models ORDER BY updated_at;

-- name: predictors
-- Reads what predicting needs of the cost models changed since $1.
SELECT model_id, revision_id, endpoint, updated_at, state -> 'predictor' AS state, (state -> 'model' ->> 'learned')::int AS learned
FROM cost_models WHERE updated_at >= $1 ORDER BY updated_at;

-- name: move_cursor
-- Moves the cursor to ($1, $2) when it still is at ($3, $4), or is there none; tells whether it moved.
INSERT INTO cost_cursor (finished_at, request_id) VALUES ($1, $2)
ON CONFLICT (only_row) DO UPDATE SET finished_at = excluded.finished_at, request_id = excluded.request_id
WHERE cost_cursor.finished_at = $3 AND cost_cursor.request_id = $4
RETURNING true AS moved;

-- name: save
-- Stores cost models, one a revision and endpoint.
INSERT INTO cost_models (model_id, revision_id, endpoint, state, updated_at)
SELECT i.model_id, i.revision_id, i.endpoint, i.state::jsonb, clock_timestamp()
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS i (model_id, revision_id, endpoint, state)
ON CONFLICT (revision_id, endpoint) DO UPDATE SET state = excluded.state, updated_at = excluded.updated_at;

-- name: forget
-- Deletes cost models of which nothing was learned for $1 seconds, unless they are their model's newest.
DELETE FROM cost_models c
WHERE c.updated_at < now() - make_interval(secs => $1)
  AND EXISTS (SELECT FROM cost_models n WHERE n.model_id = c.model_id AND n.endpoint = c.endpoint AND n.updated_at > c.updated_at);
