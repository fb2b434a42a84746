-- Game days: faults put on purpose into the replicas of one worker or one revision, for a while. Owner: drills.

CREATE TABLE drills (
    drill_id    text PRIMARY KEY,
    fault       text NOT NULL,                 -- a name of drills/faults.py or drills/files.py
    model_id    text NOT NULL,
    revision_id text NOT NULL,                 -- empty: whichever
    worker_id   text NOT NULL,                 -- empty: whichever
    reason      text NOT NULL,
    started_by  text NOT NULL,
    started_at  timestamptz NOT NULL,
    ends_at     timestamptz NOT NULL,          -- planned, or when somebody stopped it
    CHECK (revision_id <> '' OR worker_id <> '')
);
CREATE INDEX drills_by_end ON drills (ends_at);

CREATE TABLE drill_sightings (                 -- what became of each, as its workers say
    drill_id   text NOT NULL REFERENCES drills ON DELETE CASCADE,
    replica_id text NOT NULL,
    worker_id  text NOT NULL,
    said       text NOT NULL,                  -- in force | ended | why the fault could not be put in
    at         timestamptz NOT NULL,
    PRIMARY KEY (drill_id, replica_id)
);
