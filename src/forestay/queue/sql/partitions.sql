-- name: make
-- Makes one partition unless it is there; rows of its range move over from the default partition.
SELECT forestay_make_partition($1, $2, $3, $4, $5);

-- name: drop
-- Drops the partitions of a table whose day is before $2 (yyyymmdd).
SELECT forestay_drop_partitions($1, $2);
