-- The files of SLOs that the operator names, and what is wrong with each: written by the loop that watches SLOs.

CREATE TABLE slo_files (
    name              text PRIMARY KEY,
    slos              integer NOT NULL,        -- how many of it hold
    faults            text[] NOT NULL,         -- file, line, field and mend; empty: it is good
    read_at           timestamptz NOT NULL DEFAULT clock_timestamp()
);
