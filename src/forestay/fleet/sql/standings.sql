-- name: end_current
-- Ends the subject's standing in force, as something else takes its place.
UPDATE standings SET ended_at = now(), ended_how = 'replaced', ended_by = $2, ended_why = $3
WHERE subject = $1 AND ended_at IS NULL
RETURNING standing_id;

-- name: insert
-- Puts a standing in force.
INSERT INTO standings (standing_id, subject, kind, code, rule, reason, since, expires_at, factor, freeze_results, origin, evidence)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::text::jsonb);

-- name: renew
-- Gives the subject's standing in force another end, reason and evidence; its id, and so its appeal, stays.
UPDATE standings SET reason = $2, expires_at = $3, evidence = $4::text::jsonb, origin = $5
WHERE subject = $1 AND ended_at IS NULL
RETURNING standing_id;

-- name: lift
-- Ends the subject's standing before its time and grants the appeal against it.
WITH lifted AS (
    UPDATE standings SET ended_at = now(), ended_how = 'lifted', ended_by = $2, ended_why = $3, pardon_until = $4
    WHERE subject = $1 AND ended_at IS NULL RETURNING standing_id
)
UPDATE appeals SET state = 'granted', decided_at = now(), decided_by = $2, decision = $3
FROM lifted WHERE appeals.standing_id = lifted.standing_id AND state = 'open';

-- name: is_due
-- Tells whether any standing's time is over.
SELECT EXISTS (SELECT FROM standings WHERE ended_at IS NULL AND expires_at <= now());

-- name: expire
-- Ends standings whose time is over, at most 1,000 at once, and closes the appeals that nobody decided.
WITH due AS (
    SELECT standing_id FROM standings WHERE ended_at IS NULL AND expires_at <= now()
    ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED
), moot AS (
    UPDATE appeals SET state = 'moot', decided_at = now(), decision = 'the standing ended by itself'
    FROM due WHERE appeals.standing_id = due.standing_id AND state = 'open'
)
UPDATE standings SET ended_at = now(), ended_how = 'expired', ended_by = 'loop:abuse', ended_why = 'its time was over'
FROM due WHERE standings.standing_id = due.standing_id
RETURNING standings.standing_id, subject, kind, rule;

-- name: rows
-- Reads standings, newest first; $1 null means every subject, $2 whether those that are over count too.
SELECT standing_id, subject, kind, code, rule, reason, since, expires_at, factor, freeze_results, origin,
       evidence::text AS evidence, ended_at, ended_how, ended_by, ended_why
FROM standings
WHERE ($1::text IS NULL OR subject = $1) AND ($2 OR (ended_at IS NULL AND expires_at > now()))
ORDER BY since DESC, standing_id LIMIT $3;

-- name: find
-- Reads one standing.
SELECT standing_id, subject, kind, code, rule, reason, since, expires_at, factor, freeze_results, origin,
       evidence::text AS evidence, ended_at, ended_how, ended_by, ended_why
FROM standings WHERE standing_id = $1;

-- name: advised
-- Reads what automation wanted and did not do, newest first.
SELECT at, actor, subject, effect, reason, detail::text AS detail FROM audit_log
WHERE action = 'set_standing' AND effect <> 'applied' ORDER BY at DESC, writer, sequence DESC LIMIT $1;

-- name: appeal
-- Makes an appeal against a standing in force, unless one is open.
INSERT INTO appeals (appeal_id, standing_id, made_by, words)
SELECT $1, standing_id, $3, $4 FROM standings WHERE standing_id = $2 AND ended_at IS NULL AND expires_at > now()
ON CONFLICT (standing_id) WHERE state = 'open' DO NOTHING
RETURNING appeal_id;

-- name: open_appeal
-- Reads the appeal that is open against a standing in force.
SELECT appeal_id, appeals.standing_id, subject, made_at, made_by, words, state, decided_at, decided_by, decision
FROM appeals JOIN standings USING (standing_id)
WHERE appeals.standing_id = $1 AND state = 'open' AND ended_at IS NULL AND expires_at > now();

-- name: appeals
-- Reads appeals, newest first; $1 null means in every state, $2 null against every standing.
SELECT appeal_id, appeals.standing_id, subject, made_at, made_by, words, state, decided_at, decided_by, decision
FROM appeals JOIN standings USING (standing_id)
WHERE ($1::text IS NULL OR state = $1) AND ($2::text IS NULL OR appeals.standing_id = $2)
ORDER BY made_at DESC, appeal_id LIMIT $3;

-- name: deny
-- Turns an open appeal down.
UPDATE appeals SET state = 'denied', decided_at = now(), decided_by = $2, decision = $3
FROM standings WHERE standings.standing_id = appeals.standing_id AND appeal_id = $1 AND state = 'open'
RETURNING appeal_id, appeals.standing_id, subject, made_at, made_by, words, state, decided_at, decided_by, decision;
