-- name: outbox_state
-- Tells what waits in the main database's outbox, by its clock: which facts of now are not written yet.
SELECT clock_timestamp() AS now, min(batch_id) AS oldest, max(batch_id) AS newest FROM fact_outbox;

-- name: reader
-- Tells how far a reader has come.
SELECT position, complete_until FROM fact_readers WHERE reader = $1;

-- name: moved
-- Keeps how far a reader has come; never back.
INSERT INTO fact_readers (reader, position) VALUES ($1, $2)
ON CONFLICT (reader) DO UPDATE SET position = greatest(fact_readers.position, EXCLUDED.position);

-- name: complete
-- Keeps until when everything that ended is in what a reader makes; never back.
INSERT INTO fact_readers (reader, complete_until) VALUES ($1, $2)
ON CONFLICT (reader) DO UPDATE SET complete_until = greatest(fact_readers.complete_until, EXCLUDED.complete_until);

-- name: head_of_facts
-- Finds the last position of facts; whatever is below it is committed.
SELECT greatest(
    (SELECT max(position) FROM request_facts), (SELECT max(position) FROM attempt_facts),
    (SELECT max(position) FROM delivery_facts), (SELECT max(position) FROM poll_facts)
) AS head;

-- name: head_of_calls
-- Finds the last position of call facts.
SELECT max(position) AS head FROM call_facts;

-- name: head_of_verdicts
-- Finds the last position of verdict records.
SELECT max(position) AS head FROM verdict_facts;

-- name: open_of_facts
-- Notes the minutes of the facts after $1, up to $2: they must be rolled up (again).
INSERT INTO rollup_open (minute)
SELECT DISTINCT date_trunc('minute', finished_at) FROM (
    SELECT finished_at FROM request_facts WHERE position > $1 AND position <= $2
    UNION ALL
    SELECT finished_at FROM attempt_facts WHERE position > $1 AND position <= $2
    UNION ALL
    SELECT finished_at FROM delivery_facts WHERE position > $1 AND position <= $2
    UNION ALL
    SELECT finished_at FROM poll_facts WHERE position > $1 AND position <= $2
) AS fresh
ON CONFLICT DO NOTHING;

-- name: open_of_calls
-- Notes the minutes of the submits after $1, up to $2.
INSERT INTO rollup_open (minute)
SELECT DISTINCT date_trunc('minute', at) FROM call_facts WHERE position > $1 AND position <= $2 AND verb = 'submit'
ON CONFLICT DO NOTHING;

-- name: open_of_verdicts
-- Notes the minutes of the verdicts after $1, up to $2.
INSERT INTO rollup_open (minute)
SELECT DISTINCT date_trunc('minute', at) FROM verdict_facts WHERE position > $1 AND position <= $2 AND NOT shadow
ON CONFLICT DO NOTHING;

-- name: reopen
-- Notes every minute from $1 to before $2 that has facts: they are rolled up again.
INSERT INTO rollup_open (minute)
SELECT DISTINCT date_trunc('minute', finished_at) FROM (
    SELECT finished_at FROM request_facts WHERE finished_at >= $1 AND finished_at < $2
    UNION ALL
    SELECT finished_at FROM attempt_facts WHERE finished_at >= $1 AND finished_at < $2
    UNION ALL
    SELECT finished_at FROM delivery_facts WHERE finished_at >= $1 AND finished_at < $2
    UNION ALL
    SELECT finished_at FROM poll_facts WHERE finished_at >= $1 AND finished_at < $2
) AS wanted
ON CONFLICT DO NOTHING;

-- name: due
-- Takes the oldest open minutes that ended before $1, at most $2.
DELETE FROM rollup_open WHERE minute IN (
    SELECT minute FROM rollup_open WHERE minute < $1 ORDER BY minute LIMIT $2
)
RETURNING minute;

-- name: requests
-- Reads the request facts of [$1, $2) after ($3, $4), at most $5.
SELECT finished_at, request_id, lane, tenant_id, model_id, endpoint, revision_id, outcome, status_code, error_type, cause,
       traffic, submitted_at, started_at, first_byte_at, answered_at, checked_at, device_seconds, work
FROM request_facts
WHERE finished_at >= $1 AND finished_at < $2 AND (finished_at, request_id) > ($3::timestamptz, $4::uuid)
  AND traffic IS DISTINCT FROM 'shadow'
ORDER BY finished_at, request_id LIMIT $5;

-- name: attempts
-- Reads the attempt facts of [$1, $2) after ($3, $4), at most $5; one request has no more than a page of them.
SELECT finished_at, request_id, tenant_id, model_id, endpoint, revision_id, outcome, cause, traffic, device_seconds, work
FROM attempt_facts
WHERE finished_at >= $1 AND finished_at < $2 AND (finished_at, request_id) > ($3::timestamptz, $4::uuid)
  AND traffic IS DISTINCT FROM 'shadow'
ORDER BY finished_at, request_id LIMIT $5;

-- name: deliveries
-- Reads the delivery facts of [$1, $2) after ($3, $4), at most $5.
SELECT finished_at, request_id, tenant_id, model_id, endpoint, revision_id, outcome, traffic, request_finished_at
FROM delivery_facts
WHERE finished_at >= $1 AND finished_at < $2 AND (finished_at, request_id) > ($3::timestamptz, $4::uuid)
  AND traffic IS DISTINCT FROM 'shadow'
ORDER BY finished_at, request_id LIMIT $5;

-- name: submits
-- Reads the submits of [$1, $2) after ($3, $4), at most $5; `again`: its request was accepted by an earlier one.
SELECT at AS finished_at, call_id AS request_id, tenant_id, model_id, status_code,
       EXISTS (
           SELECT FROM call_facts AS earlier
           WHERE earlier.call_id = call_facts.call_id AND earlier.verb = 'submit' AND earlier.status_code < 400 AND earlier.at < call_facts.at
       ) AS again
FROM call_facts
WHERE verb = 'submit' AND at >= $1 AND at < $2 AND (at, call_id) > ($3::timestamptz, $4::uuid)
ORDER BY at, call_id LIMIT $5;

-- name: polls
-- Reads the counts of polls of [$1, $2) after ($3, $4), at most $5; they are of no model and no tenant.
SELECT finished_at, count_id AS request_id, '' AS model_id, '' AS tenant_id, good, bad
FROM poll_facts
WHERE finished_at >= $1 AND finished_at < $2 AND (finished_at, count_id) > ($3::timestamptz, $4::uuid)
ORDER BY finished_at, count_id LIMIT $5;

-- name: judgements
-- Reads the verdicts of [$1, $2) after ($3, $4), at most $5; of lines only the conspicuous ones are recorded.
SELECT at AS finished_at, verdict_id AS request_id, tenant_id, model_id, revision_id, verdict
FROM verdict_facts
WHERE NOT shadow AND point <> 'lines' AND at >= $1 AND at < $2 AND (at, verdict_id) > ($3::timestamptz, $4::uuid)
ORDER BY at, verdict_id LIMIT $5;

-- name: judged
-- Tells which of these requests have a verdict on what they gave out.
SELECT DISTINCT request_id FROM verdict_facts
WHERE request_id = ANY ($1::uuid[]) AND NOT shadow AND point IN ('output', 'piece');

-- name: forget_minute
-- Removes what was rolled up of a minute.
DELETE FROM rollups WHERE minute = $1;

-- name: keep
-- Writes what a minute holds.
INSERT INTO rollups SELECT * FROM jsonb_populate_recordset(NULL::rollups, $1::text::jsonb);

-- name: rolled
-- Notes that a minute was rolled up, in order.
INSERT INTO rollup_minutes (minute) VALUES ($1)
ON CONFLICT (minute) DO UPDATE SET rolled = nextval('rollup_order');

-- name: complete_until
-- Tells until when everything that ended is rolled up; null before the first roll.
SELECT complete_until FROM fact_readers WHERE reader = 'rollups';

-- name: changed
-- Lists the minutes that were rolled up after $1, in that order, at most $2.
SELECT minute, rolled FROM rollup_minutes WHERE rolled > $1 ORDER BY rolled LIMIT $2;

-- name: rows
-- Reads rolled-up rows of [$1, $2), of one model ($3) and tenant ($4) unless null.
SELECT * FROM rollups
WHERE minute >= $1 AND minute < $2 AND ($3::text IS NULL OR model_id = $3) AND ($4::text IS NULL OR tenant_id = $4)
ORDER BY minute, model_id, tenant_id, endpoint, revision_id, lane, cause, traffic;

-- name: counts
-- Adds up one indicator by minute and subject in [$1, $2): $3 says by what, $4 of which one (null: each), $5 which count.
SELECT minute,
       CASE $3::text WHEN 'model' THEN model_id WHEN 'tenant' THEN tenant_id ELSE '' END AS subject,
       traffic = 'probe' AS probe,
       sum(CASE $5::text
           WHEN 'availability' THEN good WHEN 'validity' THEN valid WHEN 'safety' THEN judged
           WHEN 'delivery' THEN delivered WHEN 'submit' THEN submits_good WHEN 'guard' THEN guard_good
           WHEN 'provenance' THEN signed WHEN 'status' THEN polls_good WHEN 'goodput' THEN device_ms_good
           WHEN 'throughput' THEN CASE WHEN traffic <> 'canary' THEN good + excluded END END)::bigint AS good,
       sum(CASE $5::text
           WHEN 'availability' THEN bad WHEN 'validity' THEN invalid WHEN 'safety' THEN unjudged
           WHEN 'delivery' THEN undelivered WHEN 'submit' THEN submits_bad WHEN 'guard' THEN guard_bad
           WHEN 'provenance' THEN unsigned WHEN 'status' THEN polls_bad WHEN 'goodput' THEN device_ms_bad
           WHEN 'throughput' THEN CASE WHEN traffic <> 'canary' THEN bad + submits_bad END END)::bigint AS bad,
       sum(CASE WHEN $5::text = 'throughput' AND traffic <> 'canary' THEN asked END)::bigint AS asked
FROM rollups
WHERE minute >= $1 AND minute < $2
  AND ($4::text IS NULL OR ($3 = 'model' AND model_id = $4) OR ($3 = 'tenant' AND tenant_id = $4) OR $3 = 'platform')
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3;

-- name: timed_counts
-- The same for durations of stage $5: good are those in bins up to $6.
SELECT r.minute,
       CASE $3::text WHEN 'model' THEN r.model_id WHEN 'tenant' THEN r.tenant_id ELSE '' END AS subject,
       r.traffic = 'probe' AS probe,
       coalesce(sum(b.value::bigint) FILTER (WHERE b.key::int <= $6), 0)::bigint AS good,
       coalesce(sum(b.value::bigint) FILTER (WHERE b.key::int > $6), 0)::bigint AS bad
FROM rollups r
CROSS JOIN LATERAL jsonb_each_text(r.latency -> $5::text) AS b
WHERE r.minute >= $1 AND r.minute < $2
  AND ($4::text IS NULL OR ($3 = 'model' AND r.model_id = $4) OR ($3 = 'tenant' AND r.tenant_id = $4) OR $3 = 'platform')
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3;

-- name: tenant_models
-- Adds up what a tenant ($3) asked of each model in [$1, $2), by cause, probes apart.
SELECT model_id, traffic = 'probe' AS probe, cause, sum(good)::bigint AS good, sum(bad)::bigint AS bad,
       sum(excluded)::bigint AS excluded, coalesce(sum(cancelled), 0)::bigint AS cancelled
FROM rollups
WHERE minute >= $1 AND minute < $2 AND tenant_id = $3
GROUP BY 1, 2, 3
HAVING sum(good + bad + excluded) > 0
ORDER BY 1, 2, 3;

-- name: tenant_latency
-- Adds up how long a tenant's ($3) successes took in [$1, $2), by model and bin, without probes.
SELECT r.model_id, b.key::int AS bin, sum(b.value::bigint)::bigint AS count
FROM rollups r
CROSS JOIN LATERAL jsonb_each_text(r.latency -> 'latency') AS b
WHERE r.minute >= $1 AND r.minute < $2 AND r.tenant_id = $3 AND r.traffic <> 'probe'
GROUP BY 1, 2
ORDER BY 1, 2;

-- name: make_partition
-- Makes one month's partition unless it is there.
SELECT forestay_make_partition('rollups', $1, 'minute', $2, $3);

-- name: drop_partitions
-- Drops the partitions whose month began before $1 (yyyymmdd).
SELECT forestay_drop_partitions('rollups', $1);

-- name: forget_minutes
-- Forgets which minutes before $1 were rolled up.
DELETE FROM rollup_minutes WHERE minute < $1;
