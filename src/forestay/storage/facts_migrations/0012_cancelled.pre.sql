-- Requests that their callers cancelled or left, told apart from callers' own errors: of those in `excluded`.

ALTER TABLE rollups
    ADD COLUMN cancelled bigint;               -- null in rows that were made before they were told apart
