-- Requests that were asked for, by the minute in which they were: demand, beside what ended in the same minute.

ALTER TABLE rollups
    ADD COLUMN asked bigint;                   -- null in rows that were made before it was counted
