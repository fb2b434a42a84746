-- X-Fal-Tags of a request, for whoever groups by them. Old code writes facts without; null then, and where there are none.

ALTER TABLE request_facts ADD COLUMN tags jsonb;
