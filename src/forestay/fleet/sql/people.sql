-- name: insert_person
-- Adds a person; no row comes back when the issuer knows the subject already.
INSERT INTO people (person_id, issuer, subject, email, role, password, one_time_until)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (issuer, subject) DO NOTHING
RETURNING person_id, issuer, subject, email, role, password, one_time_until, created_at, disabled_at, signed_in_at;

-- name: select_people
-- Lists people by address.
SELECT person_id, issuer, subject, email, role, password, one_time_until, created_at, disabled_at, signed_in_at
FROM people ORDER BY email, issuer, person_id LIMIT $1;

-- name: select_person
-- Reads one person.
SELECT person_id, issuer, subject, email, role, password, one_time_until, created_at, disabled_at, signed_in_at
FROM people WHERE person_id = $1;

-- name: select_by_subject
-- Reads one person by the name that an issuer has for them.
SELECT person_id, issuer, subject, email, role, password, one_time_until, created_at, disabled_at, signed_in_at
FROM people WHERE issuer = $1 AND subject = $2;

-- name: lock_by_subject
-- Reads one person by the name that an issuer has for them, and keeps them from changing until the transaction ends.
SELECT person_id, issuer, subject, email, role, password, one_time_until, created_at, disabled_at, signed_in_at
FROM people WHERE issuer = $1 AND subject = $2 FOR UPDATE;

-- name: set_role
-- Changes a person's role.
UPDATE people SET role = $2 WHERE person_id = $1
RETURNING person_id, issuer, subject, email, role, password, one_time_until, created_at, disabled_at, signed_in_at;

-- name: set_claims
-- Writes what an identity provider says of a person.
UPDATE people SET email = $2, role = $3 WHERE person_id = $1
RETURNING person_id, issuer, subject, email, role, password, one_time_until, created_at, disabled_at, signed_in_at;

-- name: set_enabled
-- Keeps a person out ($2 false), or lets them in again; keeping out again keeps the first moment.
UPDATE people SET disabled_at = CASE WHEN $2 THEN NULL ELSE coalesce(disabled_at, now()) END WHERE person_id = $1
RETURNING person_id, issuer, subject, email, role, password, one_time_until, created_at, disabled_at, signed_in_at;

-- name: set_password
-- Replaces the hash of a local person's password.
UPDATE people SET password = $2, one_time_until = $3 WHERE person_id = $1 AND issuer = ''
RETURNING person_id, issuer, subject, email, role, password, one_time_until, created_at, disabled_at, signed_in_at;

-- name: refresh_hash
-- Stores the same password at another cost, unless it was changed since it was read.
UPDATE people SET password = $3 WHERE person_id = $1 AND password = $2;

-- name: insert_session
-- Signs a person in for $5 seconds.
WITH signed AS (UPDATE people SET signed_in_at = now() WHERE person_id = $3)
INSERT INTO sessions (session_id, token_hash, person_id, way, expires_at)
VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5))
RETURNING session_id, person_id, way, created_at, seen_at, expires_at;

-- name: use_session
-- Finds a live session by its token's hash with its person, and notes at most once a minute that it is used.
WITH found AS (
    SELECT sessions.session_id, sessions.way, sessions.created_at, sessions.seen_at, sessions.expires_at,
        people.person_id, people.issuer, people.subject, people.email, people.role, people.one_time_until,
        people.created_at AS person_created_at, people.disabled_at, people.signed_in_at
    FROM sessions JOIN people USING (person_id)
    WHERE token_hash = $1 AND revoked_at IS NULL AND expires_at > now() AND disabled_at IS NULL
        AND seen_at > now() - make_interval(secs => $2)
), touched AS (
    UPDATE sessions SET seen_at = now() FROM found
    WHERE sessions.session_id = found.session_id AND found.seen_at < now() - interval '1 minute'
)
SELECT session_id, way, created_at, seen_at, expires_at, person_id, issuer, subject, email, role, one_time_until,
    person_created_at, disabled_at, signed_in_at
FROM found;

-- name: close_sessions
-- Ends a person's session $2, or all of them (null), but for $3.
UPDATE sessions SET revoked_at = now()
WHERE person_id = $1 AND revoked_at IS NULL AND ($2::text IS NULL OR session_id = $2) AND session_id <> $3
RETURNING session_id;

-- name: lock_failures
-- Reads the failures of these subjects in order, and keeps others from counting until the transaction ends.
SELECT subject, failures, failed_at FROM sign_in_failures WHERE subject = ANY ($1::text[]) ORDER BY subject FOR UPDATE;

-- name: clock
-- Reads the time now, not that of the transaction's start: it may have waited for a lock.
SELECT clock_timestamp();

-- name: begin_failures
-- Makes sure that each subject has a row to lock.
INSERT INTO sign_in_failures (subject, failures, failed_at)
SELECT subject, 0, now() FROM unnest($1::text[]) AS subject ORDER BY subject
ON CONFLICT (subject) DO NOTHING;

-- name: count_failures
-- Writes how often each subject has failed.
UPDATE sign_in_failures SET failures = counted.failures, failed_at = counted.failed_at
FROM unnest($1::text[], $2::int[], $3::timestamptz[]) AS counted (subject, failures, failed_at)
WHERE sign_in_failures.subject = counted.subject;

-- name: forget_failures
-- Forgets the failures of an account that has signed in.
DELETE FROM sign_in_failures WHERE subject = ANY ($1::text[]) AND subject LIKE 'account:%';

-- name: take_back_failures
-- Takes a try back that a network made with success.
UPDATE sign_in_failures SET failures = failures - 1 WHERE subject = ANY ($1::text[]) AND failures > 0;

-- name: use_proof
-- Notes that a proof was shown; no row comes back when it was shown before.
INSERT INTO used_proofs (digest, expires_at) VALUES ($1, now() + make_interval(secs => $2))
ON CONFLICT (digest) DO NOTHING
RETURNING digest;

-- name: forget_old
-- Drops what speaks for nobody any more: sessions that ended a month ago, old failures, proofs that have expired.
WITH a AS (DELETE FROM sessions WHERE expires_at < now() - interval '30 days' RETURNING 1),
b AS (DELETE FROM sign_in_failures WHERE failed_at < now() - interval '2 days' RETURNING 1),
c AS (DELETE FROM used_proofs WHERE expires_at < now() RETURNING 1)
SELECT (SELECT count(*) FROM a) + (SELECT count(*) FROM b) + (SELECT count(*) FROM c);
