-- A queued request is refused after its submit: the refusal is found to its call by the request's id.

CREATE INDEX call_facts_call ON call_facts (call_id);
