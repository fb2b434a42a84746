-- name: ended
-- Reads what ended in the last minute: model, status, and whole milliseconds, at most $1 of them.
SELECT model_id, status_code, (extract(epoch FROM finished_at - submitted_at) * 1000)::bigint AS milliseconds,
       count(*) AS requests
FROM request_facts
WHERE finished_at > clock_timestamp() - interval '1 minute' AND lane <> 'outside'
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 LIMIT $1;

-- name: received
-- Counts the calls of the last minute that were let in, by model.
SELECT model_id, count(*) AS requests FROM call_facts
WHERE at > clock_timestamp() - interval '1 minute' AND accepted AND verb IN ('submit', 'run', 'stream', 'realtime')
GROUP BY model_id;
