-- Released files that bear a manifest where a policy asks for one, and those that do not.

ALTER TABLE rollups
    ADD COLUMN signed   bigint,                -- null in rows that were made before files were counted
    ADD COLUMN unsigned bigint;
