-- One replica may be drained and held back alone, while its worker keeps the others. Owner: fleet, quality.

ALTER TABLE placements
    ADD COLUMN ending text[] NOT NULL DEFAULT '{}';             -- replicas that end, whatever else stays

ALTER TABLE quality_holds
    ADD COLUMN alone boolean NOT NULL DEFAULT false,            -- of the replica alone, not of all on the worker
    ADD COLUMN replicas int NOT NULL DEFAULT 1,                 -- how many were taken away
    ADD COLUMN given_back boolean NOT NULL DEFAULT false;       -- they are wanted again

ALTER TABLE quality_canary_asks
    ADD COLUMN differed boolean NOT NULL DEFAULT false;         -- the self-test drew otherwise
