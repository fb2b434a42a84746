-- A model that nobody has let in yet is in review: administrators of its tenant alone may call it. Owner: fleet.

ALTER TABLE models DROP CONSTRAINT models_visibility_check;
ALTER TABLE models ADD CONSTRAINT models_visibility_check
    CHECK (visibility IN ('private', 'shared', 'public', 'review')) NOT VALID;
