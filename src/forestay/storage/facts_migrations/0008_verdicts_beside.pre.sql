-- Verdict records name the tenant's own policy where one judged beside the model's.

ALTER TABLE verdict_facts ADD COLUMN beside text NOT NULL DEFAULT '';  -- "strict@3"; empty: the model's policy alone
