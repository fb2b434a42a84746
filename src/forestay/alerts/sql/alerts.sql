-- name: head
-- Reads which version of the alerts is current.
SELECT version FROM alert_head;

-- name: live
-- Reads every alert that deciding still needs, with its newest acknowledgement.
SELECT a.data, k.at AS ack_at, k.by AS ack_by, k.why AS ack_why
FROM alerts a
LEFT JOIN LATERAL (
    SELECT at, by, why FROM alert_acks WHERE alert_id = a.alert_id ORDER BY position DESC LIMIT 1
) k ON true
WHERE a.live;

-- name: groups
-- Reads when each group was last told.
SELECT group_key, notified_at FROM alert_groups;

-- name: in_force
-- Reads the silences that hold at $1.
SELECT silence_id, matchers, since, until, by, why, ended_at FROM alert_silences
WHERE until > $1 AND since <= $1 AND (ended_at IS NULL OR ended_at > $1);

-- name: take
-- Takes the right to write on version $1 at moment $2; no row comes back when somebody else has decided since.
UPDATE alert_head SET version = version + $3::int, decided_at = $2 WHERE version = $1 RETURNING version;

-- name: save
-- Writes alerts as they are now.
INSERT INTO alerts (alert_id, fingerprint, state, severity, live, opened_at, data)
SELECT alert_id, fingerprint, state, severity, live, opened_at, data
FROM jsonb_to_recordset($1::text::jsonb) AS f (
    alert_id text, fingerprint text, state text, severity text, live boolean, opened_at timestamptz, data jsonb
)
ON CONFLICT (alert_id) DO UPDATE
SET state = excluded.state, severity = excluded.severity, live = excluded.live, data = excluded.data;

-- name: save_group
-- Notes when a group was told.
INSERT INTO alert_groups (group_key, notified_at) VALUES ($1, $2)
ON CONFLICT (group_key) DO UPDATE SET notified_at = excluded.notified_at;

-- name: drop_groups
-- Forgets groups that hold no alert any more.
DELETE FROM alert_groups WHERE group_key = ANY ($1::text[]);

-- name: note
-- Appends what was decided, and why.
INSERT INTO alert_events (alert_id, at, what, reason) VALUES ($1, $2, $3, $4);

-- name: list
-- Lists alerts in state $1 (null: any), newest first, at most $2.
SELECT a.data, k.at AS ack_at, k.by AS ack_by, k.why AS ack_why
FROM alerts a
LEFT JOIN LATERAL (
    SELECT at, by, why FROM alert_acks WHERE alert_id = a.alert_id ORDER BY position DESC LIMIT 1
) k ON true
WHERE $1::text IS NULL OR a.state = $1
ORDER BY a.opened_at DESC, a.alert_id LIMIT $2;

-- name: find
-- Reads alert $1 with its newest acknowledgement.
SELECT a.data, k.at AS ack_at, k.by AS ack_by, k.why AS ack_why
FROM alerts a
LEFT JOIN LATERAL (
    SELECT at, by, why FROM alert_acks WHERE alert_id = a.alert_id ORDER BY position DESC LIMIT 1
) k ON true
WHERE a.alert_id = $1;

-- name: events
-- Reads what was decided about alert $1, in order, the newest $2.
SELECT at, what, reason FROM (
    SELECT position, at, what, reason FROM alert_events WHERE alert_id = $1 ORDER BY position DESC LIMIT $2
) newest ORDER BY position;

-- name: ack
-- Notes that somebody has alert $1 in hand, while it fires.
INSERT INTO alert_acks (alert_id, at, by, why)
SELECT alert_id, $2, $3, $4 FROM alerts WHERE alert_id = $1 AND state = 'firing' RETURNING alert_id;

-- name: silence
-- Keeps a silence.
INSERT INTO alert_silences (silence_id, matchers, since, until, by, why) VALUES ($1, $2, $3, $4, $5, $6);

-- name: end_silence
-- Ends silence $1 now, when it has not ended yet.
UPDATE alert_silences SET ended_at = $2, ended_by = $3
WHERE silence_id = $1 AND ended_at IS NULL AND until > $2 RETURNING silence_id;

-- name: silences
-- Lists silences, newest first; $1: those that are over too.
SELECT silence_id, matchers, since, until, by, why, ended_at FROM alert_silences
WHERE $1::boolean OR (until > $2 AND ended_at IS NULL) ORDER BY since DESC, silence_id LIMIT $3;

-- name: tell_routes
-- Notes what the controller has read of routes and receivers.
UPDATE alert_head SET routes = $1::text::jsonb WHERE routes IS DISTINCT FROM $1::text::jsonb;

-- name: routes
-- Reads what the controller has read of routes and receivers, and when it last decided.
SELECT routes, decided_at FROM alert_head;

-- name: forget_alerts
-- Deletes up to $2 alerts of the past that were opened before $1.
DELETE FROM alerts WHERE alert_id IN (
    SELECT alert_id FROM alerts WHERE NOT live AND opened_at < $1 LIMIT $2
);

-- name: forget_events
-- Deletes up to $2 events from before $1.
DELETE FROM alert_events WHERE position IN (SELECT position FROM alert_events WHERE at < $1 ORDER BY at LIMIT $2);

-- name: forget_silences
-- Deletes silences that were over before $1.
DELETE FROM alert_silences WHERE until < $1;
