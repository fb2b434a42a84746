-- name: anything_waiting
-- Tells whether a request of any of the models $1 waits: a look without locks, so that idle workers hold up nobody. And
-- whether a rule counts what is in flight, without which nobody has to ask for rooms.
SELECT EXISTS (
    SELECT FROM unnest($1::text[]) AS m (model_id)
    WHERE EXISTS (
        SELECT FROM requests r WHERE r.worker_id IS NULL AND r.model_id = m.model_id AND r.available_at <= now()
    )
) AS waiting, EXISTS (SELECT FROM limit_rules WHERE kind = 'in_flight') AS counted;

-- name: lock_pool
-- Makes those who claim for one pool, or correct its accounts, take turns until their transactions end. With $2 the
-- commit does not wait for the disk: a claim that a crash of the database undoes is a lease lost, and nothing else.
-- Plans are kept for as long as a connection lives: none may be made of the queue's being short just now.
SELECT pg_advisory_xact_lock(4660002, hashtext($1)),
       set_config('synchronous_commit', CASE WHEN $2 THEN 'off' ELSE current_setting('synchronous_commit') END, true),
       set_config('enable_seqscan', 'off', true);

-- name: rooms
-- What the rules on counts in flight leave room for, read under the pool's lock: one row for each scope and subject that
-- a rule holds, `*` for every other one of that scope. No rule, no row. $1: the settings' rule for every tenant, null for
-- none; a stored one stands before it.
WITH caps AS MATERIALIZED (
    SELECT scope, subject, amount::int AS amount FROM limit_rules WHERE kind = 'in_flight'
    UNION ALL
    SELECT 'tenant', '*', $1::int
    WHERE $1::int IS NOT NULL AND NOT EXISTS (
        SELECT FROM limit_rules WHERE kind = 'in_flight' AND scope = 'tenant' AND subject = '*'
    )
),
held AS MATERIALIZED (
    SELECT CASE WHEN grouping(tenant_id) = 0 THEN 'tenant' WHEN grouping(key_id) = 0 THEN 'key'
                WHEN grouping(model_id) = 0 THEN 'model' ELSE 'fleet' END AS scope,
           coalesce(tenant_id, key_id, model_id, '*') AS subject, count(*)::int AS running
    FROM requests
    WHERE worker_id IS NOT NULL AND EXISTS (SELECT FROM caps)
    GROUP BY GROUPING SETS ((tenant_id), (key_id), (model_id), ())
)
SELECT c.scope, c.subject, c.amount - coalesce(h.running, 0) AS room
FROM caps c LEFT JOIN held h USING (scope, subject)
UNION ALL
SELECT h.scope, h.subject, c.amount - h.running
FROM held h JOIN caps c ON c.scope = h.scope AND c.subject = '*'
WHERE h.subject <> '*' AND NOT EXISTS (SELECT FROM caps o WHERE o.scope = h.scope AND o.subject = h.subject);

-- name: claim
-- Leases waiting requests for free slots, by turns (queue/fairness, decision 0005). Groups ($3..$6) are revisions with
-- their buckets; slots ($7..$10) name the group, the replica, whether it is idle, and the slot's rank in its group; $11
-- is the pool. A request that must run alone takes the first slot of an idle replica and keeps that replica's other
-- slots empty; while one has waited for more than five seconds, busy replicas of its model take nothing, so that one
-- of them falls idle. Counts in flight ($12..$19, from `rooms`): tenants and keys with their room, the room of every
-- other one (null: no limit), keys without any, and the room of the whole fleet. Needs the pool's lock.
WITH RECURSIVE groups AS MATERIALIZED (
    SELECT g.* FROM unnest($3::int[], $4::text[], $5::text[], $6::text[]) AS g (n, model_id, revision_id, buckets)
),
slots AS MATERIALIZED (
    SELECT s.* FROM unnest($7::int[], $8::text[], $9::boolean[], $10::int[]) AS s (n, replica_id, idle, rank)
),
lonely AS MATERIALIZED (
    SELECT g.n, q.row_at, row_number() OVER (PARTITION BY g.n ORDER BY q.order_at) AS rank
    FROM groups g
    CROSS JOIN LATERAL (
        SELECT r.ctid AS row_at, r.order_at
        FROM requests r
        WHERE r.worker_id IS NULL AND r.alone AND r.model_id = g.model_id AND r.state = 'queued'
          AND r.available_at <= now() AND g.buckets::int4multirange @> r.bucket::int
          AND (r.start_deadline IS NULL OR r.start_deadline > now())
          AND (r.total_deadline IS NULL OR r.total_deadline > now())
        ORDER BY r.order_at
        LIMIT (SELECT count(DISTINCT s.replica_id) FROM slots s WHERE s.n = g.n AND s.idle)
        FOR UPDATE SKIP LOCKED
    ) AS q
),
lonely_slots AS MATERIALIZED (
    SELECT l.row_at, i.replica_id, l.n
    FROM lonely l
    JOIN (
        SELECT s.n, s.replica_id, row_number() OVER (PARTITION BY s.n ORDER BY min(s.rank)) AS rank
        FROM slots s WHERE s.idle GROUP BY s.n, s.replica_id
    ) AS i ON i.n = l.n AND i.rank = l.rank
),
free AS MATERIALIZED (  -- one number names group and rank, so that picks and slots are joined by hash
    SELECT s.n, s.replica_id, s.n * 1000000 + row_number() OVER (PARTITION BY s.n ORDER BY s.rank) AS place
    FROM slots s
    WHERE s.replica_id NOT IN (SELECT replica_id FROM lonely_slots)
      AND (s.idle OR NOT EXISTS (
          SELECT FROM requests r JOIN groups g ON g.n = s.n
          WHERE r.worker_id IS NULL AND r.alone AND r.model_id = g.model_id
            AND r.available_at < now() - interval '5 seconds' AND g.buckets::int4multirange @> r.bucket::int
      ))
),
room AS MATERIALIZED (SELECT n, count(*) AS slots FROM free GROUP BY n),
tenant_rooms AS MATERIALIZED (SELECT t.* FROM unnest($12::text[], $13::int[]) AS t (tenant_id, room)),
key_rooms AS MATERIALIZED (SELECT k.* FROM unnest($14::text[], $15::int[]) AS k (key_id, room)),
-- Who waits: from tenant to tenant along the index, never through all of a tenant's requests.
hops AS (
    SELECT g.n, g.model_id, g.buckets::int4multirange AS buckets, c.low, (
        SELECT r.tenant_id FROM requests r
        WHERE r.worker_id IS NULL AND r.model_id = g.model_id AND r.low_priority = c.low AND NOT r.alone
          AND r.state = 'queued' AND r.available_at <= now() AND g.buckets::int4multirange @> r.bucket::int
          AND r.key_id <> ALL ($18::text[])
          AND (r.start_deadline IS NULL OR r.start_deadline > now())
          AND (r.total_deadline IS NULL OR r.total_deadline > now())
        ORDER BY r.tenant_id LIMIT 1
    ) AS tenant_id
    FROM groups g JOIN room USING (n) CROSS JOIN (VALUES (false), (true)) AS c (low)
    UNION ALL
    SELECT h.n, h.model_id, h.buckets, h.low, (
        SELECT r.tenant_id FROM requests r
        WHERE r.worker_id IS NULL AND r.model_id = h.model_id AND r.low_priority = h.low AND NOT r.alone
          AND r.tenant_id > h.tenant_id
          AND r.state = 'queued' AND r.available_at <= now() AND h.buckets @> r.bucket::int
          AND r.key_id <> ALL ($18::text[])
          AND (r.start_deadline IS NULL OR r.start_deadline > now())
          AND (r.total_deadline IS NULL OR r.total_deadline > now())
        ORDER BY r.tenant_id LIMIT 1
    )
    FROM hops h WHERE h.tenant_id IS NOT NULL
),
known AS MATERIALIZED (
    SELECT h.n, h.model_id, h.buckets, h.low, h.tenant_id, coalesce(w.weight, 1) AS weight,
           coalesce(s.active, false) AS active, coalesce(s.virtual_time, 0) AS virtual_time,
           coalesce(m.room, $16::int) AS may_run
    FROM hops h
    LEFT JOIN tenant_rooms m ON m.tenant_id = h.tenant_id
    LEFT JOIN service s ON s.pool = $11 AND s.tenant_id = h.tenant_id
    LEFT JOIN tenant_weights w ON w.tenant_id = h.tenant_id
    WHERE h.tenant_id IS NOT NULL AND coalesce(m.room, $16::int, 1) > 0
),
-- A tenant that returns starts where its competitors are, and never later than the pool itself.
lifted AS MATERIALIZED (
    SELECT k.n, k.model_id, k.buckets, k.low, k.tenant_id, k.weight, k.active, k.may_run,
           CASE WHEN k.active THEN k.virtual_time ELSE greatest(k.virtual_time, f.virtual_time) END AS virtual_time
    FROM known k
    JOIN (
        SELECT n, least(
                   coalesce((SELECT p.virtual_time FROM pools p WHERE p.pool = $11), 0),
                   min(virtual_time) FILTER (WHERE active)
               ) AS virtual_time
        FROM known GROUP BY n
    ) AS f USING (n)
),
-- Of n slots only the n tenants with the least virtual time can win one: each one's first request starts at its own.
heads AS MATERIALIZED (
    SELECT l.n, l.tenant_id, l.weight, l.virtual_time, l.low AS low_class, l.low AND q.order_at > now() AS low,
           q.request_id, q.predicted_seconds, q.due_at, q.key_id, l.may_run
    FROM (SELECT *, row_number() OVER (PARTITION BY n, low ORDER BY virtual_time, tenant_id) AS place FROM lifted) AS l
    JOIN room USING (n)
    CROSS JOIN LATERAL (
        SELECT r.request_id, r.predicted_seconds, r.due_at, r.order_at, r.key_id
        FROM requests r
        WHERE r.worker_id IS NULL AND r.key_id <> ALL ($18::text[]) AND r.model_id = l.model_id AND r.low_priority = l.low AND NOT r.alone
          AND r.tenant_id = l.tenant_id
          AND r.state = 'queued' AND r.available_at <= now() AND l.buckets @> r.bucket::int
          AND (r.start_deadline IS NULL OR r.start_deadline > now())
          AND (r.total_deadline IS NULL OR r.total_deadline > now())
        ORDER BY r.due_at
        LIMIT room.slots + 1
    ) AS q
    WHERE l.place <= room.slots
),
turns AS MATERIALIZED (
    SELECT n, tenant_id, request_id, start_tag, low, low_class,
           row_number() OVER (PARTITION BY n ORDER BY low, start_tag, due_at, request_id) AS turn
    FROM (
        SELECT h.*, h.virtual_time + coalesce(sum(h.predicted_seconds) OVER (
                   PARTITION BY h.n, h.tenant_id ORDER BY h.low, h.due_at, h.request_id
                   ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
               ), 0) / h.weight AS start_tag
        FROM (
            SELECT e.*, row_number() OVER (PARTITION BY e.tenant_id ORDER BY e.low, e.due_at, e.request_id) AS of_tenant,
                   row_number() OVER (PARTITION BY e.key_id ORDER BY e.low, e.due_at, e.request_id) AS of_key
            FROM heads e
        ) AS h
        LEFT JOIN key_rooms k USING (key_id)
        WHERE (h.may_run IS NULL OR h.of_tenant <= h.may_run)
          AND (coalesce(k.room, $17::int) IS NULL OR h.of_key <= coalesce(k.room, $17::int))
    ) AS tagged
),
-- One look-up by key for each pick, and then by place: `worker_id IS NULL` would let the planner walk the index of all
-- that waits, and joins by id compare every pick with every other.
locked AS MATERIALIZED (
    SELECT w.n, w.request_id, w.start_tag, w.turn, q.row_at
    FROM (
        SELECT t.n, t.request_id, t.start_tag, t.turn
        FROM turns t JOIN room USING (n) WHERE t.turn <= room.slots
        ORDER BY t.low, t.start_tag LIMIT $19::int
    ) AS w
    CROSS JOIN LATERAL (
        SELECT r.ctid AS row_at FROM requests r
        WHERE r.request_id = w.request_id AND r.state = 'queued' AND coalesce(r.worker_id, '') = ''
        FOR UPDATE SKIP LOCKED
    ) AS q
),
ordinary AS MATERIALIZED (
    SELECT l.n, l.row_at, l.start_tag, l.turn,
           l.n * 1000000 + row_number() OVER (PARTITION BY l.n ORDER BY l.turn) AS place
    FROM locked l
),
picked AS MATERIALIZED (
    SELECT l.row_at, l.replica_id, g.revision_id, NULL::float8 AS start_tag, 0 AS turn
    FROM lonely_slots l JOIN groups g USING (n)
    UNION ALL
    SELECT o.row_at, f.replica_id, g.revision_id, o.start_tag, o.turn
    FROM ordinary o JOIN free f USING (place) JOIN groups g ON g.n = o.n
),
leased AS (
    UPDATE requests r
    SET state = 'leased', attempt = r.attempt + 1, worker_id = $1, replica_id = p.replica_id,
        revision_id = p.revision_id, leased_at = clock_timestamp(), started_at = NULL,
        lease_expires_at = clock_timestamp() + make_interval(secs => $2)
    FROM picked p
    WHERE r.ctid = p.row_at AND r.state = 'queued'
    RETURNING r.request_id, r.attempt, r.tenant_id, r.model_id, r.endpoint, r.revision_id, r.replica_id,
              r.submitted_at, r.lease_expires_at, r.crashed_replicas, r.lost_leases, r.retries_used, r.order_at,
              r.predicted_seconds, p.start_tag, p.turn
),
-- Charges what was taken, and remembers who has been waiting since when; `left_over`: it goes on waiting here. Requests
-- that yield keep no place: a low request renewed again and again would save up the whole pool.
charged AS (
    INSERT INTO service AS s (pool, tenant_id, virtual_time, active)
    SELECT $11, a.tenant_id, a.virtual_time + coalesce(c.seconds, 0) / a.weight, a.left_over
    FROM (
        SELECT l.tenant_id, min(l.weight) AS weight, min(l.virtual_time) AS virtual_time, bool_or(l.active) AS active,
               bool_or(EXISTS (
                   SELECT FROM turns t
                   WHERE t.tenant_id = l.tenant_id AND NOT t.low AND t.request_id NOT IN (SELECT request_id FROM leased)
               ) OR NOT l.low AND NOT EXISTS (  -- too far behind its turn to be looked at
                   SELECT FROM turns t WHERE t.tenant_id = l.tenant_id AND NOT t.low_class
               )) AS left_over
        FROM lifted l GROUP BY l.tenant_id
    ) AS a
    LEFT JOIN (SELECT tenant_id, sum(predicted_seconds) AS seconds FROM leased GROUP BY tenant_id) AS c USING (tenant_id)
    WHERE c.tenant_id IS NOT NULL OR NOT (a.active AND a.left_over)
    ON CONFLICT (pool, tenant_id) DO UPDATE SET virtual_time = excluded.virtual_time, active = excluded.active
),
moved AS (
    INSERT INTO pools AS p (pool, virtual_time)
    SELECT $11, max(start_tag) FROM leased HAVING max(start_tag) IS NOT NULL
    ON CONFLICT (pool) DO UPDATE SET virtual_time = excluded.virtual_time
    WHERE p.virtual_time < excluded.virtual_time
)
SELECT l.request_id, l.attempt, l.tenant_id, l.model_id, l.endpoint, l.revision_id, l.replica_id, l.submitted_at,
       l.lease_expires_at, l.crashed_replicas, l.lost_leases, l.retries_used, l.predicted_seconds,
       i.options, i.body, i.body_key
FROM leased l
CROSS JOIN LATERAL (  -- OFFSET 0 keeps this one look-up by key for each row, whatever the planner believes
    SELECT x.options, x.body, x.body_key FROM request_inputs x WHERE x.request_id = l.request_id OFFSET 0
) AS i
ORDER BY l.turn, l.order_at;

-- name: claim_hinted
-- Leases, among the first hundred waiting requests of each offer's model, those whose hint the replica carries and
-- whose tenant is at most this one request ahead of the pool $9: affinity bends the turns by no more than that. Tenants
-- $10 and keys $11 are left out: too few of theirs may still run.
WITH offers AS MATERIALIZED (
    SELECT o.*
    FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::int[], $8::text[])
         AS o (replica_id, model_id, revision_id, buckets, slots, hints)
),
heads AS MATERIALIZED (
    SELECT h.*
    FROM (SELECT DISTINCT model_id FROM offers) AS m
    CROSS JOIN LATERAL (
        SELECT r.request_id, r.model_id, r.tenant_id, r.key_id, r.bucket, r.hint, r.order_at, r.predicted_seconds
        FROM requests r
        WHERE r.worker_id IS NULL AND r.model_id = m.model_id AND r.state = 'queued' AND r.available_at <= now()
        ORDER BY r.order_at
        LIMIT 100
    ) AS h
    LEFT JOIN service s ON s.pool = $9 AND s.tenant_id = h.tenant_id
    LEFT JOIN tenant_weights w ON w.tenant_id = h.tenant_id
    WHERE h.hint IS NOT NULL AND h.tenant_id <> ALL ($10::text[]) AND h.key_id <> ALL ($11::text[])
      AND (s.virtual_time IS NULL OR s.virtual_time <= h.predicted_seconds / coalesce(w.weight, 1)
           + coalesce((SELECT p.virtual_time FROM pools p WHERE p.pool = $9), 0))
),
wanted AS MATERIALIZED (
    SELECT DISTINCT ON (w.request_id) w.request_id, w.replica_id, w.revision_id, w.slots
    FROM (
        SELECT h.request_id, o.replica_id, o.revision_id, o.slots,
               row_number() OVER (PARTITION BY o.replica_id ORDER BY h.order_at) AS rank,
               row_number() OVER (PARTITION BY o.replica_id, h.tenant_id ORDER BY h.order_at) AS of_tenant
        FROM heads h
        JOIN offers o ON o.model_id = h.model_id AND h.hint = ANY (string_to_array(o.hints, E'\x1f'))
                     AND o.buckets::int4multirange @> h.bucket::int
    ) AS w
    WHERE w.rank <= w.slots AND w.of_tenant = 1
    ORDER BY w.request_id, w.replica_id
),
picked AS MATERIALIZED (
    SELECT r.request_id
    FROM requests r
    WHERE r.request_id = ANY (ARRAY(SELECT request_id FROM wanted))
      AND r.state = 'queued' AND coalesce(r.worker_id, '') = '' AND NOT r.alone
      AND (r.start_deadline IS NULL OR r.start_deadline > now())
      AND (r.total_deadline IS NULL OR r.total_deadline > now())
    FOR UPDATE SKIP LOCKED
),
leased AS (
    UPDATE requests r
    SET state = 'leased', attempt = r.attempt + 1, worker_id = $1, replica_id = w.replica_id,
        revision_id = w.revision_id, leased_at = clock_timestamp(), started_at = NULL,
        lease_expires_at = clock_timestamp() + make_interval(secs => $2)
    FROM wanted w
    WHERE r.request_id = ANY (ARRAY(SELECT request_id FROM picked)) AND r.request_id = w.request_id
      AND r.state = 'queued'
    RETURNING r.request_id, r.attempt, r.tenant_id, r.model_id, r.endpoint, r.revision_id, r.replica_id,
              r.submitted_at, r.lease_expires_at, r.crashed_replicas, r.lost_leases, r.retries_used, r.order_at,
              r.predicted_seconds
),
charged AS (
    INSERT INTO service AS s (pool, tenant_id, virtual_time, active)
    SELECT $9, l.tenant_id, coalesce((SELECT p.virtual_time FROM pools p WHERE p.pool = $9), 0) + l.cost, false
    FROM (
        SELECT tenant_id, sum(predicted_seconds) / coalesce(
                   (SELECT w.weight FROM tenant_weights w WHERE w.tenant_id = leased.tenant_id), 1
               ) AS cost
        FROM leased GROUP BY tenant_id
    ) AS l
    ON CONFLICT (pool, tenant_id) DO UPDATE
    SET virtual_time = excluded.virtual_time - coalesce((SELECT p.virtual_time FROM pools p WHERE p.pool = $9), 0)
        + CASE WHEN s.active THEN s.virtual_time
               ELSE greatest(s.virtual_time, coalesce((SELECT p.virtual_time FROM pools p WHERE p.pool = $9), 0)) END
)
SELECT l.request_id, l.attempt, l.tenant_id, l.model_id, l.endpoint, l.revision_id, l.replica_id, l.submitted_at,
       l.lease_expires_at, l.crashed_replicas, l.lost_leases, l.retries_used, l.predicted_seconds,
       i.options, i.body, i.body_key
FROM leased l
CROSS JOIN LATERAL (  -- OFFSET 0 keeps this one look-up by key for each row, whatever the planner believes
    SELECT x.options, x.body, x.body_key FROM request_inputs x WHERE x.request_id = l.request_id OFFSET 0
) AS i
ORDER BY l.order_at;

-- name: settle
-- Corrects the accounts of tenants $1 on revisions $2 by $3 device-seconds each (actual minus predicted, summed): one
-- row a tenant and pool. A tenant without an account has none to correct. Needs the locks of the pools.
UPDATE service s
SET virtual_time = greatest(0, s.virtual_time + d.seconds / coalesce(w.weight, 1))
FROM (
    SELECT i.tenant_id, coalesce(v.spec -> 'resources' ->> 'pool', 'cpu') AS pool, sum(i.seconds) AS seconds
    FROM unnest($1::text[], $2::text[], $3::float8[]) AS i (tenant_id, revision_id, seconds)
    JOIN revisions v USING (revision_id)
    GROUP BY 1, 2
) AS d
LEFT JOIN tenant_weights w ON w.tenant_id = d.tenant_id
WHERE s.pool = d.pool AND s.tenant_id = d.tenant_id;

-- name: pools_of
-- Names the pools of revisions, in locking order.
SELECT DISTINCT coalesce(spec -> 'resources' ->> 'pool', 'cpu') AS pool FROM revisions
WHERE revision_id = ANY ($1::text[]) ORDER BY 1;

-- name: rest
-- Marks accounts whose tenants wait for nothing any more, or only with requests that yield, so that they are lifted when
-- they return.
UPDATE service s SET active = false
WHERE s.active AND NOT EXISTS (
    SELECT FROM requests r
    WHERE r.worker_id IS NULL AND r.tenant_id = s.tenant_id AND (NOT r.low_priority OR r.order_at <= now())
);

-- name: forget_service
-- Deletes accounts that are behind their pool and wait for nothing: a returning tenant is lifted there anyhow.
DELETE FROM service s USING pools p
WHERE p.pool = s.pool AND NOT s.active AND s.virtual_time <= p.virtual_time;

-- name: set_weight
-- Gives a tenant that exists its weight.
INSERT INTO tenant_weights (tenant_id, weight) SELECT tenant_id, $2 FROM tenants WHERE tenant_id = $1
ON CONFLICT (tenant_id) DO UPDATE SET weight = excluded.weight
RETURNING tenant_id;

-- name: accounts
-- Lists what tenants have received in each pool beside the pool's own virtual time.
SELECT s.pool, s.tenant_id, s.virtual_time, s.active, coalesce(w.weight, 1) AS weight, coalesce(p.virtual_time, 0) AS pool_virtual_time
FROM service s LEFT JOIN pools p USING (pool) LEFT JOIN tenant_weights w USING (tenant_id)
ORDER BY s.pool, s.virtual_time, s.tenant_id LIMIT $1;
