-- name: pressure
-- Adds up what waits and what is held, by model, tenant, whether it yields, and (waiting ones) the group of deadlines that
-- $1 parts. What is past its deadline is about to be ended and asks for nothing. One pass over live requests.
SELECT g.*, coalesce(w.weight, 1) AS weight
FROM (
    SELECT r.model_id, r.tenant_id, r.low_priority AND r.order_at > now() AS low, r.worker_id IS NOT NULL AS held,
           CASE WHEN r.worker_id IS NULL
                THEN width_bucket(extract(epoch FROM r.start_deadline - now())::float8, $1::float8[]) END AS horizon,
           count(*)::int AS requests, sum(r.predicted_seconds) AS seconds,
           sum(r.predicted_seconds ^ 2) AS squares,
           min(extract(epoch FROM r.start_deadline - now()))::float8 AS earliest,
           max(extract(epoch FROM r.start_deadline - now()))::float8 AS latest,
           coalesce(sum(extract(epoch FROM now() - r.leased_at)), 0)::float8 AS elapsed
    FROM requests r
    WHERE r.state IN ('queued', 'leased', 'running', 'checking')
      AND (r.worker_id IS NOT NULL OR (
          (r.start_deadline IS NULL OR r.start_deadline > now()) AND (r.total_deadline IS NULL OR r.total_deadline > now())
      ))
    GROUP BY 1, 2, 3, 4, 5
) AS g
LEFT JOIN tenant_weights w USING (tenant_id)
ORDER BY g.model_id, g.tenant_id, g.low, g.held, g.earliest;

-- name: deadlines_wait
-- Tells whether a waiting request must start by some moment, along the index of such moments: one look, however long the
-- queue is.
SELECT count(*) > 0 AS some FROM (
    SELECT FROM requests r WHERE r.start_deadline IS NOT NULL AND r.worker_id IS NULL ORDER BY r.start_deadline LIMIT 1
) AS first;

-- name: queued
-- Reads the waiting requests of model $1 in the order in which their tenants want them served, at most $2.
SELECT request_id, tenant_id, predicted_seconds, due_at, order_at, low_priority, start_deadline, total_deadline, attempt
FROM requests WHERE model_id = $1 AND worker_id IS NULL AND state = 'queued' ORDER BY due_at LIMIT $2;
