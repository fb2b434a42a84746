-- name: submit
-- Stores the submissions that nothing stands against and returns their ids. Left out are those that an undelivered
-- submit may answer, those whose Idempotency-Key is taken and those over their queue limit: the caller looks closer.
WITH items AS MATERIALIZED (
    SELECT *
    FROM unnest(
        $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::smallint[], $7::boolean[], $8::float8[],
        $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::text[], $13::text[], $14::bytea[], $15::text[],
        $16::text[], $17::boolean[], $18::float8[], $19::timestamptz[], $20::text[], $21::bytea[], $22::int[]
    ) AS i (
        request_id, tenant_id, key_id, model_id, endpoint, bucket, low_priority, order_delay,
        submitted_at, start_deadline, total_deadline, hint, options, body, body_key,
        webhook_url, store_io, predicted_seconds, due_at, idempotency_key, fingerprint, room
    )
),
open AS MATERIALIZED (
    SELECT i.*
    FROM items i
    WHERE NOT EXISTS (
        SELECT FROM undelivered_submits u
        WHERE u.key_id = i.key_id AND u.fingerprint = i.fingerprint AND i.fingerprint <> ''
          AND u.created_at > now() - make_interval(secs => $23)
    )
    AND (i.room IS NULL OR i.room > (
        SELECT count(*) FROM (
            SELECT FROM requests r WHERE r.model_id = i.model_id AND r.worker_id IS NULL LIMIT greatest(i.room, 0)
        ) AS waiting
    ))
),
keyed AS (
    INSERT INTO idempotency_keys (key_id, idempotency_key, fingerprint, request_id)
    SELECT key_id, idempotency_key, fingerprint, request_id FROM open WHERE idempotency_key IS NOT NULL
    ON CONFLICT DO NOTHING
    RETURNING request_id
),
fresh AS MATERIALIZED (
    SELECT o.* FROM open o
    WHERE o.idempotency_key IS NULL OR EXISTS (SELECT FROM keyed k WHERE k.request_id = o.request_id)
),
inputs AS (
    INSERT INTO request_inputs (request_id, options, body, body_key, webhook_url, store_io)
    SELECT request_id, options, body, body_key, webhook_url, store_io FROM fresh
)
INSERT INTO requests (
    request_id, tenant_id, key_id, model_id, endpoint, bucket, low_priority, order_at, available_at,
    submitted_at, start_deadline, total_deadline, hint, webhook, predicted_seconds, due_at
)
SELECT request_id, tenant_id, key_id, model_id, endpoint, bucket, low_priority,
       submitted_at + make_interval(secs => order_delay), now(),
       submitted_at, start_deadline, total_deadline, hint, webhook_url IS NOT NULL, predicted_seconds, due_at
FROM fresh
RETURNING request_id;

-- name: submit_plain
-- The same for submissions without Idempotency-Key and queue limit, the usual case.
WITH items AS MATERIALIZED (
    SELECT *
    FROM unnest(
        $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::smallint[], $7::boolean[], $8::float8[],
        $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::text[], $13::text[], $14::bytea[], $15::text[],
        $16::text[], $17::boolean[], $18::float8[], $19::timestamptz[], $20::bytea[]
    ) AS i (
        request_id, tenant_id, key_id, model_id, endpoint, bucket, low_priority, order_delay,
        submitted_at, start_deadline, total_deadline, hint, options, body, body_key,
        webhook_url, store_io, predicted_seconds, due_at, fingerprint
    )
    WHERE NOT EXISTS (
        SELECT FROM undelivered_submits u
        WHERE u.key_id = i.key_id AND u.fingerprint = i.fingerprint AND i.fingerprint <> ''
          AND u.created_at > now() - make_interval(secs => $21)
    )
),
inputs AS (
    INSERT INTO request_inputs (request_id, options, body, body_key, webhook_url, store_io)
    SELECT request_id, options, body, body_key, webhook_url, store_io FROM items
)
INSERT INTO requests (
    request_id, tenant_id, key_id, model_id, endpoint, bucket, low_priority, order_at, available_at,
    submitted_at, start_deadline, total_deadline, hint, webhook, predicted_seconds, due_at
)
SELECT request_id, tenant_id, key_id, model_id, endpoint, bucket, low_priority,
       submitted_at + make_interval(secs => order_delay), now(),
       submitted_at, start_deadline, total_deadline, hint, webhook_url IS NOT NULL, predicted_seconds, due_at
FROM items
RETURNING request_id;

-- name: idempotent_owner
-- Finds the request that took this Idempotency-Key, with its fingerprint.
SELECT request_id, fingerprint FROM idempotency_keys WHERE key_id = $1 AND idempotency_key = $2;

-- name: adopt
-- Consumes the oldest undelivered submit with this fingerprint, within the window of $3 seconds: one retry gets it.
DELETE FROM undelivered_submits
WHERE (key_id, fingerprint, request_id) = (
    SELECT u.key_id, u.fingerprint, u.request_id
    FROM undelivered_submits u
    WHERE u.key_id = $1 AND u.fingerprint = $2 AND u.created_at > now() - make_interval(secs => $3)
    ORDER BY u.created_at
    LIMIT 1
    FOR UPDATE SKIP LOCKED
)
RETURNING request_id;

-- name: remember_key
-- Notes which request answers an Idempotency-Key, unless one does already.
INSERT INTO idempotency_keys (key_id, idempotency_key, fingerprint, request_id) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING;

-- name: queue_length
-- Counts a model's waiting requests, at most $2 of them.
SELECT count(*) FROM (SELECT FROM requests WHERE model_id = $1 AND worker_id IS NULL LIMIT $2) AS waiting;

-- name: mark_undelivered
-- Notes that the answer to a submit never reached its caller.
INSERT INTO undelivered_submits (key_id, fingerprint, request_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING;

-- name: known_among
-- Tells which of these ids are stored, live or finished, in one consistent look; $2 and $3 bound them for pruning.
SELECT request_id FROM requests WHERE request_id = ANY ($1)
UNION ALL
SELECT request_id FROM finished_requests WHERE request_id = ANY ($1) AND request_id >= $2 AND request_id <= $3;

-- name: finished_among
-- Tells which of these ids are finished; $2 and $3 bound them for partition pruning.
SELECT request_id FROM finished_requests WHERE request_id = ANY ($1) AND request_id >= $2 AND request_id <= $3;

-- name: step
-- Moves held requests on to the state $4 (running, checking) when they are in one of $5; tells which are still held.
-- Rows that are further on already stay as they are.
UPDATE requests r
SET state = CASE WHEN r.state = ANY ($5::text[]) THEN $4 ELSE r.state END,
    started_at = coalesce(r.started_at, clock_timestamp())
FROM unnest($1::uuid[], $2::smallint[], $3::text[]) AS i (request_id, attempt, worker_id)
WHERE r.request_id = ANY ($1) AND r.request_id = i.request_id AND r.attempt = i.attempt AND r.worker_id = i.worker_id
  AND r.state IN ('leased', 'running', 'checking')
RETURNING r.request_id, r.attempt;

-- name: renew
-- Extends the leases that are still this worker's, even those just run out that nobody has rescued.
UPDATE requests r
SET lease_expires_at = clock_timestamp() + make_interval(secs => $4)
FROM unnest($2::uuid[], $3::smallint[]) AS i (request_id, attempt)
WHERE r.request_id = ANY ($2) AND r.request_id = i.request_id AND r.attempt = i.attempt AND r.worker_id = $1
  AND r.state IN ('leased', 'running', 'checking')
RETURNING r.request_id, r.attempt, r.lease_expires_at;

-- name: refuse
-- Stores a request that is blocked at submit: it never waits, and its fact says that nothing ran. Its input is not kept.
WITH refused AS (
    INSERT INTO finished_requests (
        request_id, tenant_id, key_id, model_id, endpoint, state, attempt, submitted_at, finished_at, status_code,
        headers, body, error, error_type, ephemeral, tags
    )
    VALUES ($1, $2, $3, $4, $5, 'blocked', 0, $6, clock_timestamp(), $7, $8::text::jsonb, $9, $10, $11, $12,
            $13::text::jsonb)
    ON CONFLICT DO NOTHING
    RETURNING *
)
INSERT INTO fact_outbox (facts)
SELECT json_agg(f) FROM (
    SELECT 'request' AS kind, request_id, 'queue' AS lane, tenant_id, key_id, model_id, endpoint, revision_id,
           replica_id, NULL::text AS worker_id, attempt AS attempts, state, 'safety' AS outcome, status_code, error_type,
           submitted_at, NULL::timestamptz AS leased_at, started_at, finished_at,
           NULL::timestamptz AS attempt_finished_at, false AS has_attempt, 0.0 AS device_seconds,
           0.0 AS predicted_seconds, json_build_object() AS work, tags
    FROM refused
) AS f
HAVING count(*) > 0;

-- name: publish
-- Stores a request that has succeeded though nothing ran: an answer that people have released.
WITH published AS (
    INSERT INTO finished_requests (
        request_id, tenant_id, key_id, model_id, endpoint, state, attempt, submitted_at, finished_at, status_code,
        headers, body, error, error_type, ephemeral, tags, body_key
    )
    VALUES ($1, $2, $3, $4, $5, 'succeeded', 0, $6, clock_timestamp(), $7, $8::text::jsonb,
            CASE WHEN $14::text IS NULL THEN $9::bytea END, $10, $11, $12, $13::text::jsonb, $14)
    ON CONFLICT DO NOTHING
    RETURNING *
),
hooks AS (
    INSERT INTO webhooks (request_id, tenant_id, url)
    SELECT request_id, tenant_id, $15::text FROM published WHERE $15::text IS NOT NULL
)
INSERT INTO fact_outbox (facts)
SELECT json_agg(f) FROM (
    SELECT 'request' AS kind, request_id, 'queue' AS lane, tenant_id, key_id, model_id, endpoint, revision_id,
           replica_id, NULL::text AS worker_id, attempt AS attempts, state, 'succeeded' AS outcome, status_code,
           error_type, submitted_at, NULL::timestamptz AS leased_at, started_at, finished_at,
           NULL::timestamptz AS attempt_finished_at, false AS has_attempt, 0.0 AS device_seconds,
           0.0 AS predicted_seconds, json_build_object() AS work, tags
    FROM published
) AS f
HAVING count(*) > 0;

-- name: end
-- Ends requests for good, whoever asks: a worker's finish (fenced by attempt and worker), a cancel, an expiry, a
-- failure. One statement takes the row from the queue, keeps the answer, enqueues the webhook, releases the files of
-- the attempt that the answer names and writes the facts. Items whose fence or state no longer fits are left out of the
-- answer. An attempt ran between two stamps of its worker's clock: the mark that it runs is made in batches, at times
-- after its end.
WITH items AS MATERIALIZED (
    SELECT *
    FROM unnest(
        $1::uuid[], $2::smallint[], $3::text[], $4::text[], $5::text[], $6::smallint[], $7::text[], $8::bytea[],
        $9::text[], $10::text[], $11::text[], $12::text[], $13::boolean[], $14::timestamptz[], $15::timestamptz[],
        $16::float8[], $17::text[], $18::timestamptz[], $19::text[], $20::text[]
    ) AS i (
        request_id, attempt, worker_id, from_states, state, status_code, headers, body,
        body_key, error, error_type, outcome, has_attempt, attempt_started_at, attempt_finished_at,
        device_seconds, work, checked_at, device, media_ids
    )
),
gone AS (
    DELETE FROM requests r
    USING items i
    WHERE r.request_id = ANY ($1) AND r.request_id = i.request_id
      AND (i.attempt IS NULL OR r.attempt = i.attempt)
      AND (i.worker_id IS NULL OR r.worker_id = i.worker_id)
      AND r.state = ANY (string_to_array(i.from_states, ','))
    RETURNING r.request_id, r.attempt AS attempts, r.tenant_id, r.key_id, r.model_id, r.endpoint, r.revision_id,
              r.replica_id, r.worker_id, r.submitted_at, r.leased_at, r.state AS state_before,
              coalesce(i.attempt_started_at, r.started_at) AS started_at, r.webhook,
              r.predicted_seconds, r.available_at AS queued_at, i.state, i.status_code, i.headers, i.body, i.body_key,
              i.error, i.error_type, i.outcome, i.has_attempt, i.attempt_finished_at, i.device_seconds, i.work,
              i.checked_at, i.device, i.media_ids, clock_timestamp() AS finished_at
),
inputs AS (
    DELETE FROM request_inputs x
    WHERE x.request_id = ANY ($1) AND x.request_id IN (SELECT request_id FROM gone)
    RETURNING x.request_id, x.body AS input, x.body_key AS input_key, x.webhook_url, x.store_io,
              -- Only options that hold tags are parsed: nearly none do, and this is every finish.
              CASE WHEN strpos(x.options, '"tags":{"') > 0 THEN x.options::jsonb -> 'tags' END AS tags,
              -- The first "traceparent": is the field itself, and its value 55 characters; a regular expression that finds
              -- them costs as much as all the rest of a finish.
              CASE WHEN substr(x.options, strpos(x.options, '"traceparent":') + 14, 1) = '"'
                    AND substr(x.options, strpos(x.options, '"traceparent":') + 70, 1) = '"'
                   THEN substr(x.options, strpos(x.options, '"traceparent":') + 15, 55) END AS traceparent
),
-- Every input is of a request that is gone; a full join is what cannot compare each with each.
ended AS MATERIALIZED (
    SELECT g.*, x.input, x.input_key, x.webhook_url, x.store_io, x.tags, x.traceparent
    FROM gone g FULL JOIN inputs x USING (request_id)
),
kept AS (
    INSERT INTO finished_requests (
        request_id, tenant_id, key_id, model_id, endpoint, state, attempt, revision_id, replica_id, submitted_at,
        started_at, finished_at, inference_seconds, status_code, headers, body, body_key, error, error_type,
        input, input_key, ephemeral, tags
    )
    SELECT g.request_id, g.tenant_id, g.key_id, g.model_id, g.endpoint, g.state, g.attempts, g.revision_id,
           g.replica_id, g.submitted_at, g.started_at, g.finished_at,
           extract(epoch FROM g.attempt_finished_at - g.started_at)::float8,
           g.status_code, g.headers::jsonb, g.body, g.body_key, g.error, g.error_type,
           CASE WHEN g.store_io THEN g.input END, g.input_key, NOT coalesce(g.store_io, true), g.tags
    FROM ended g
),
hooks AS (
    INSERT INTO webhooks (request_id, tenant_id, url)
    SELECT g.request_id, g.tenant_id, g.webhook_url FROM ended g WHERE g.webhook AND g.webhook_url IS NOT NULL
),
released AS (
    UPDATE media m
    SET state = 'released'
    FROM gone g
    WHERE m.request_id = ANY ($1) AND m.request_id = g.request_id AND m.attempt = g.attempts
      AND m.state = 'quarantine' AND g.state = 'succeeded'
      -- What the answer does not name nobody has looked at, and nobody may read.
      AND m.media_id = ANY (string_to_array(g.media_ids, ','))
),
facts AS (
    INSERT INTO fact_outbox (facts)
    SELECT json_agg(f) FROM (
        SELECT 'request' AS kind, g.request_id, 'queue' AS lane, g.tenant_id, g.key_id, g.model_id, g.endpoint,
               g.revision_id, g.replica_id, g.worker_id, g.attempts, g.state, g.outcome, g.status_code, g.error_type,
               g.submitted_at, g.queued_at, g.leased_at, g.started_at, g.finished_at, g.attempt_finished_at,
               g.checked_at, g.has_attempt, g.device, g.traceparent,
               g.device_seconds, g.predicted_seconds,  -- where no attempt reported, what was predicted is said all the same
               CASE WHEN g.work = '{}' THEN json_build_object('predicted_seconds', g.predicted_seconds)
                    ELSE g.work::json END AS work, g.tags
        FROM ended g
    ) AS f
    HAVING count(*) > 0
)
SELECT request_id, attempts, state_before FROM gone;

-- name: withhold
-- Parks judged outputs that need a person or a check that is down: the lease ends, the request stays, and with it the
-- status, headers and error of the answer; its body lies in the object store.
WITH items AS MATERIALIZED (
    SELECT *
    FROM unnest($1::uuid[], $2::smallint[], $3::text[], $4::text[], $5::timestamptz[], $6::float8[], $7::text[],
                $8::text[], $9::timestamptz[], $10::text[])
         AS i (request_id, attempt, worker_id, outcome, attempt_finished_at, device_seconds, work, answer, checked_at,
               device)
),
parked AS (
    UPDATE requests r
    SET state = 'withheld', lease_expires_at = NULL, withheld = i.answer::jsonb
    FROM items i
    WHERE r.request_id = ANY ($1) AND r.request_id = i.request_id AND r.attempt = i.attempt
      AND r.worker_id = i.worker_id AND r.state = ANY ($11::text[])
    RETURNING r.request_id, r.attempt, r.tenant_id, r.model_id, r.endpoint, r.revision_id, r.replica_id, r.worker_id,
              r.submitted_at, r.available_at AS queued_at, r.leased_at, r.started_at, r.predicted_seconds,
              i.outcome, i.attempt_finished_at, i.device_seconds, i.work, i.checked_at, i.device
),
facts AS (
    INSERT INTO fact_outbox (facts)
    SELECT json_agg(f) FROM (
        SELECT 'attempt' AS kind, p.request_id, p.attempt, p.tenant_id, p.model_id, p.endpoint, p.revision_id,
               p.replica_id, p.worker_id, p.outcome, p.submitted_at, p.queued_at, p.leased_at, p.started_at,
               p.attempt_finished_at AS finished_at, p.checked_at, p.device, p.device_seconds, p.predicted_seconds,
               p.work::json AS work
        FROM parked p
    ) AS f
    HAVING count(*) > 0
)
SELECT request_id, attempt FROM parked;

-- name: carry
-- Keeps, for the attempts after this one, what it has begun elsewhere; fenced like every word of a worker.
UPDATE requests SET carried = $4
WHERE request_id = $1 AND attempt = $2 AND worker_id = $3 AND state IN ('leased', 'running', 'checking')
RETURNING request_id, attempt;

-- name: carried
-- Reads what the attempts so far have left for this one.
SELECT carried FROM requests WHERE request_id = $1 AND attempt = $2 AND worker_id = $3;

-- name: held_back
-- Reads what a withheld request keeps of its answer, with the attempt that gave it and what its caller chose.
SELECT r.attempt, r.withheld, r.revision_id, i.options
FROM requests r JOIN request_inputs i USING (request_id) WHERE r.request_id = $1 AND r.state = 'withheld';

-- name: requeue
-- Gives held requests back for another attempt, with what is charged to them, and writes the attempts' facts.
WITH items AS MATERIALIZED (
    SELECT *
    FROM unnest(
        $1::uuid[], $2::smallint[], $3::text[], $4::float8[], $5::text[], $6::text[], $7::smallint[], $8::boolean[],
        $9::text[], $10::timestamptz[], $11::timestamptz[], $12::float8[], $13::text[], $14::text[]
    ) AS i (
        request_id, attempt, worker_id, delay_seconds, crashed_replicas, retries_used, lost_leases, alone,
        outcome, attempt_started_at, attempt_finished_at, device_seconds, work, device
    )
),
before AS MATERIALIZED (
    SELECT r.request_id, r.attempt, r.tenant_id, r.model_id, r.endpoint, r.revision_id, r.replica_id, r.worker_id,
           r.submitted_at, r.available_at AS queued_at, r.leased_at,
           coalesce(i.attempt_started_at, r.started_at) AS started_at,
           i.outcome, coalesce(i.attempt_finished_at, clock_timestamp()) AS finished_at, i.device_seconds,
           r.predicted_seconds, i.work, i.device
    FROM requests r
    JOIN items i ON i.request_id = r.request_id
    WHERE r.request_id = ANY ($1) AND r.attempt = i.attempt AND r.worker_id = i.worker_id
      AND r.state IN ('leased', 'running', 'checking')
    FOR UPDATE OF r
),
given_back AS (
    UPDATE requests r
    SET state = 'queued', available_at = clock_timestamp() + make_interval(secs => i.delay_seconds),
        crashed_replicas = string_to_array(i.crashed_replicas, E'\x1f'), retries_used = i.retries_used::jsonb,
        lost_leases = i.lost_leases, alone = i.alone,
        worker_id = NULL, replica_id = NULL, revision_id = NULL, lease_expires_at = NULL, started_at = NULL
    FROM items i
    WHERE r.request_id = ANY (ARRAY(SELECT request_id FROM before)) AND r.request_id = i.request_id
      AND r.attempt = i.attempt AND r.worker_id = i.worker_id
    RETURNING r.request_id, r.attempt
),
facts AS (
    INSERT INTO fact_outbox (facts)
    SELECT json_agg(f) FROM (
        SELECT 'attempt' AS kind, b.request_id, b.attempt, b.tenant_id, b.model_id, b.endpoint, b.revision_id,
               b.replica_id, b.worker_id, b.outcome, b.submitted_at, b.queued_at, b.leased_at, b.started_at,
               b.finished_at, b.device, b.device_seconds, b.predicted_seconds, b.work::json AS work
        FROM before b
    ) AS f
    HAVING count(*) > 0
)
SELECT request_id, attempt FROM given_back;

-- name: abandon
-- Records the fact of an attempt whose request was cancelled or expired under it; a rescue records its own.
INSERT INTO fact_outbox (facts)
SELECT $1::text::json FROM finished_requests
WHERE request_id = $2 AND attempt = $3 AND state IN ('cancelled', 'expired');

-- name: snapshots
-- Reads statuses of live and finished requests in one consistent look; $2 and $3 bound the ids for partition pruning.
SELECT request_id, tenant_id, key_id, model_id, endpoint, state, attempt, submitted_at, order_at, revision_id,
       replica_id, NULL::float8 AS inference_seconds, NULL::text AS error, NULL::text AS error_type
FROM requests WHERE request_id = ANY ($1)
UNION ALL
SELECT request_id, tenant_id, key_id, model_id, endpoint, state, attempt, submitted_at, submitted_at, revision_id,
       replica_id, inference_seconds, error, error_type
FROM finished_requests WHERE request_id = ANY ($1) AND request_id >= $2 AND request_id <= $3;

-- name: result
-- Reads one finished request with its answer.
SELECT request_id, tenant_id, key_id, model_id, endpoint, state, attempt, submitted_at, submitted_at AS order_at,
       revision_id, replica_id, inference_seconds, error, error_type, status_code, headers, body, body_key, finished_at,
       ephemeral
FROM finished_requests WHERE request_id = $1;

-- name: append_logs
-- Keeps log lines. Losing the last moment's lines in a crash is harmless, so nobody waits for the disk.
INSERT INTO request_logs (request_id, attempt, sequence, at, level, source, message)
SELECT i.*
FROM (SELECT set_config('synchronous_commit', 'off', true)) AS unhurried,
     unnest($1::uuid[], $2::smallint[], $3::int[], $4::timestamptz[], $5::text[], $6::text[], $7::text[]) AS i;

-- name: logs
-- Reads a request's log lines after a position.
SELECT position, request_id, attempt, sequence, at, level, source, message
FROM request_logs WHERE request_id = $1 AND position > $2 ORDER BY position LIMIT 1000;

-- name: queued_ahead
-- Samples the order times of each model's waiting requests, the first $2 of each model.
SELECT m.model_id, q.order_at
FROM unnest($1::text[]) AS m (model_id)
CROSS JOIN LATERAL (
    SELECT r.order_at FROM requests r
    WHERE r.model_id = m.model_id AND r.worker_id IS NULL AND r.state = 'queued'
    ORDER BY r.order_at LIMIT $2::int
) AS q
ORDER BY m.model_id, q.order_at;

-- name: backlog
-- Counts waiting requests per model, at most a thousand of each: placement looks many times a second while requests come
-- in, and must not cost more the longer the queue is. From model to model along the index; the order keeps the planner
-- from reading the whole table for the first thousand.
WITH RECURSIVE models AS (
    (SELECT r.model_id FROM requests r WHERE r.worker_id IS NULL ORDER BY r.model_id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT r.model_id FROM requests r WHERE r.worker_id IS NULL AND r.model_id > m.model_id ORDER BY r.model_id LIMIT 1
    )
    FROM models m WHERE m.model_id IS NOT NULL
)
SELECT m.model_id, q.waiting
FROM models m
CROSS JOIN LATERAL (
    SELECT count(*) AS waiting FROM (
        SELECT FROM requests r
        WHERE r.worker_id IS NULL AND r.model_id = m.model_id AND r.state = 'queued' ORDER BY r.order_at LIMIT 1000
    ) AS seen
) AS q
WHERE q.waiting > 0;

-- name: still_held
-- Tells which leases are still the worker's.
SELECT r.request_id, r.attempt
FROM requests r
JOIN unnest($2::uuid[], $3::smallint[]) AS i (request_id, attempt) USING (request_id)
WHERE r.request_id = ANY ($2) AND r.attempt = i.attempt AND r.worker_id = $1
  AND r.state IN ('leased', 'running', 'checking');

-- name: lost_leases
-- Locks requests whose lease has run out, with what decides about them.
SELECT r.request_id, r.attempt, r.worker_id, r.lost_leases, r.retries_used, r.crashed_replicas, r.started_at,
       (SELECT i.options FROM request_inputs i WHERE i.request_id = r.request_id) AS options
FROM requests r
WHERE r.worker_id IS NOT NULL AND r.lease_expires_at <= clock_timestamp()
  AND r.state IN ('leased', 'running', 'checking')
LIMIT $1
FOR UPDATE OF r SKIP LOCKED;

-- name: overdue
-- Locks requests past a deadline: the time to start counts while a request waits, the total time always.
SELECT * FROM (
    SELECT request_id, attempt, false AS in_total FROM requests
    WHERE start_deadline <= clock_timestamp() AND state = 'queued'
    ORDER BY start_deadline LIMIT $1 FOR UPDATE SKIP LOCKED
) AS late_to_start
UNION ALL
SELECT * FROM (
    SELECT request_id, attempt, true AS in_total FROM requests
    WHERE total_deadline <= clock_timestamp()
    ORDER BY total_deadline LIMIT $1 FOR UPDATE SKIP LOCKED
) AS late_to_end;

-- name: unfinished
-- Lists what has not ended, of one tenant, key and model; null means any. Read whole, and seldom: when counters were lost.
SELECT request_id, model_id, predicted_seconds
FROM requests
WHERE ($1::text IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR key_id = $2) AND ($3::text IS NULL OR model_id = $3);

-- name: running
-- Counts what workers hold, a row a tenant, key and model.
SELECT tenant_id, key_id, model_id, count(*) AS requests FROM requests
WHERE worker_id IS NOT NULL AND state IN ('leased', 'running', 'checking')
GROUP BY tenant_id, key_id, model_id;

-- name: owner_of
-- Tells whose request this is.
SELECT tenant_id FROM requests WHERE request_id = $1
UNION ALL
SELECT tenant_id FROM finished_requests WHERE request_id = $1;

-- name: forget_finished
-- Deletes finished requests with ids below $1 that no dropped partition took along; returns their object keys.
DELETE FROM finished_requests WHERE request_id < $1 RETURNING body_key, input_key;

-- name: keys_before
-- Lists the object keys of finished requests with ids below $1, before their partitions are dropped.
SELECT unnest(ARRAY[body_key, input_key]) AS object_key FROM finished_requests
WHERE request_id < $1 AND (body_key IS NOT NULL OR input_key IS NOT NULL);

-- name: forget_logs
-- Deletes log lines of requests with ids below $1 that no dropped partition took along.
DELETE FROM request_logs WHERE request_id < $1;

-- name: forget_keys
-- Deletes Idempotency-Keys made before $1 and undelivered submits that nobody may adopt any more ($2 seconds).
WITH stale AS (DELETE FROM undelivered_submits WHERE created_at < now() - make_interval(secs => $2))
DELETE FROM idempotency_keys WHERE created_at < $1;

-- name: forget_ephemeral
-- Deletes the bodies whose callers asked for nothing to be kept, an hour after their end; returns their object keys.
UPDATE finished_requests AS f
SET body = NULL, body_key = NULL, input_key = NULL, headers = '{}', ephemeral = false, status_code = 410
FROM (
    SELECT request_id, body_key, input_key FROM finished_requests
    WHERE ephemeral AND finished_at < now() - interval '1 hour' LIMIT 1000
) AS old
WHERE f.request_id = old.request_id
RETURNING old.body_key, old.input_key;
