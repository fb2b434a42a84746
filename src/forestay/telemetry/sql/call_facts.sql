-- name: take_turn
-- Lets one writer at a time go on, so that positions become visible in their order and a reader's cursor skips none.
SELECT pg_advisory_xact_lock(4660002);

-- name: keep
-- Appends call facts; one that is there already (written before an unclear answer) is left as it is.
INSERT INTO call_facts (
    at, call_id, tenant_id, key_id, model_id, lane, verb, network, agent, accepted, cause, status_code,
    predicted_seconds, prompt, raw, prompt_chars, meaning, shape, claimed, tried
)
SELECT at, call_id, tenant_id, key_id, model_id, lane, verb, network, agent, accepted, cause, status_code,
       predicted_seconds, prompt, raw, prompt_chars, decode(meaning, 'base64'), shape, claimed, tried
FROM jsonb_to_recordset($1::text::jsonb) AS f (
    at timestamptz, call_id uuid, tenant_id text, key_id text, model_id text, lane text, verb text, network text,
    agent text, accepted boolean, cause text, status_code int, predicted_seconds float8, prompt bigint, raw bigint,
    prompt_chars int, meaning text, shape bigint, claimed text, tried bigint
)
ON CONFLICT DO NOTHING;

-- name: refuse
-- Notes calls again, as refused at the request's end; $1 names the requests. Returns those whose call was found.
-- A call counts once: one that was noted as refused when it came, or again since, is found and left as it is.
WITH wanted AS (
    SELECT request_id, submitted_at, finished_at, cause, status_code
    FROM jsonb_to_recordset($1::text::jsonb) AS f (
        request_id uuid, submitted_at timestamptz, finished_at timestamptz, cause text, status_code int
    )
), found AS (
    SELECT c.*, w.submitted_at, w.finished_at, w.cause AS word, w.status_code AS told
    FROM wanted w
    JOIN call_facts c ON c.call_id = w.request_id AND c.verb <> 'refused_later'
     AND c.at >= w.submitted_at - interval '1 minute'
), noted AS (
    INSERT INTO call_facts (
        at, call_id, tenant_id, key_id, model_id, lane, verb, network, agent, accepted, cause, status_code,
        predicted_seconds, prompt, raw, prompt_chars, meaning, shape, claimed, tried
    )
    SELECT f.finished_at, f.call_id, f.tenant_id, f.key_id, f.model_id, f.lane, 'refused_later', f.network, f.agent,
           false, f.word, f.told, 0, f.prompt, f.raw, f.prompt_chars, f.meaning, f.shape, '', 0
    FROM found f
    WHERE f.accepted AND NOT EXISTS (
        SELECT FROM call_facts e
        WHERE e.call_id = f.call_id AND e.verb = 'refused_later' AND e.at >= f.submitted_at - interval '1 minute'
    )
    ON CONFLICT DO NOTHING
)
SELECT DISTINCT call_id FROM found;

-- name: after
-- Reads facts after position $1, at most $3, in order; $2 names the partitions to look at: nothing older is written.
SELECT at, call_id, position, tenant_id, key_id, model_id, lane, verb, network, agent, accepted, cause, status_code,
       predicted_seconds, prompt, raw, prompt_chars, meaning, shape, claimed, tried
FROM call_facts WHERE position > $1 AND at >= $2 ORDER BY position LIMIT $3;

-- name: between
-- Reads facts from $1 on, before $2, after position $3, at most $4, in order.
SELECT at, call_id, position, tenant_id, key_id, model_id, lane, verb, network, agent, accepted, cause, status_code,
       predicted_seconds, prompt, raw, prompt_chars, meaning, shape, claimed, tried
FROM call_facts WHERE at >= $1 AND at < $2 AND position > $3 ORDER BY position LIMIT $4;

-- name: make_partition
-- Makes one day's partition unless it is there.
SELECT forestay_make_partition('call_facts', $1, 'at', $2, $3);

-- name: drop_partitions
-- Drops the partitions whose day is before $1 (yyyymmdd).
SELECT forestay_drop_partitions('call_facts', $1);
