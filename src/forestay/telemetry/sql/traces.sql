-- name: place
-- Tells how far the exporter has come, and the last position of facts; whatever is below it is committed.
SELECT (SELECT position FROM fact_readers WHERE reader = 'traces') AS position,
       greatest(
           (SELECT max(position) FROM request_facts), (SELECT max(position) FROM attempt_facts),
           (SELECT max(position) FROM delivery_facts), 0
       ) AS head;

-- name: moved
-- Keeps how far the exporter has come.
INSERT INTO fact_readers (reader, position) VALUES ('traces', $1)
ON CONFLICT (reader) DO UPDATE SET position = greatest(fact_readers.position, EXCLUDED.position);

-- name: requests
-- Reads the requests that ended, positions after $1 up to $2, whose callers or whose turn want them recorded.
SELECT * FROM request_facts
WHERE position > $1 AND position <= $2 AND traceparent IS NOT NULL AND right(traceparent, 1) IN ('1','3','5','7','9','b','d','f')
ORDER BY position;

-- name: attempts_of
-- Reads the attempts of requests $1 that ended between two moments.
SELECT * FROM attempt_facts WHERE request_id = ANY ($1::uuid[]) AND finished_at BETWEEN $2 AND $3 ORDER BY attempt;

-- name: verdicts_of
-- Reads the judgements of requests $1 made between two moments.
SELECT request_id, at, seconds, point, verdict FROM verdict_facts
WHERE request_id = ANY ($1::uuid[]) AND at BETWEEN $2 AND $3 AND NOT shadow ORDER BY at;

-- name: late_attempts
-- Reads attempts after $1 up to $2 of requests whose spans are out already; with the request's context.
SELECT a.*, r.traceparent FROM attempt_facts a
JOIN request_facts r ON r.request_id = a.request_id AND r.position <= $1
    AND r.finished_at BETWEEN a.submitted_at AND a.finished_at + interval '1 hour'
WHERE a.position > $1 AND a.position <= $2
  AND right(r.traceparent, 1) IN ('1','3','5','7','9','b','d','f');

-- name: deliveries
-- Reads webhooks that ended, after $1 up to $2, with the context of their requests.
SELECT d.*, r.traceparent FROM delivery_facts d
JOIN request_facts r ON r.request_id = d.request_id
    AND r.finished_at BETWEEN d.request_finished_at - interval '1 minute' AND d.request_finished_at + interval '1 minute'
WHERE d.position > $1 AND d.position <= $2
  AND right(r.traceparent, 1) IN ('1','3','5','7','9','b','d','f');
