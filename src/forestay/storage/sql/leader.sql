-- name: lead
-- Takes a loop's lease when it is free or run out (term + 1), renews it when it is ours already; no row otherwise.
INSERT INTO loop_leaders AS held (loop, holder, term, expires_at)
VALUES ($1, $2, 1, clock_timestamp() + make_interval(secs => $3))
ON CONFLICT (loop) DO UPDATE
SET holder = excluded.holder,
    term = held.term + (held.holder <> excluded.holder OR held.expires_at <= clock_timestamp())::int,
    expires_at = excluded.expires_at
WHERE held.holder = excluded.holder OR held.expires_at <= clock_timestamp()
RETURNING term;

-- name: resign
-- Ends our lease now; does nothing when another has taken it over.
UPDATE loop_leaders SET expires_at = clock_timestamp() WHERE loop = $1 AND holder = $2 AND term = $3;

-- name: leaderless
-- Names loops that nobody has led for $1 seconds, though somebody once did.
SELECT loop, extract(epoch FROM clock_timestamp() - expires_at)::float8 AS seconds
FROM loop_leaders WHERE expires_at < clock_timestamp() - make_interval(secs => $1) ORDER BY loop;
