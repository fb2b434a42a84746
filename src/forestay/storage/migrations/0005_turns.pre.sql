-- Whose turn it is: virtual time received per pool and tenant, weights, and an index for taking turns.
-- Old code goes on claiming by order_at and inserts without due_at.

ALTER TABLE requests ADD COLUMN due_at timestamptz NOT NULL DEFAULT now() + interval '1 hour';  -- order inside a tenant
CREATE INDEX requests_turns ON requests (model_id, low_priority, tenant_id, due_at) WHERE worker_id IS NULL;

CREATE TABLE pools (
    pool         text PRIMARY KEY,
    virtual_time double precision NOT NULL DEFAULT 0   -- the largest start tag picked so far; device-seconds per weight
) WITH (fillfactor = 50);

CREATE TABLE service (                                 -- what each tenant has received, as the turns count it
    pool         text NOT NULL,
    tenant_id    text NOT NULL,
    virtual_time double precision NOT NULL,            -- start tag of its next request
    active       boolean NOT NULL,                     -- it has been waiting ever since: not lifted again
    PRIMARY KEY (pool, tenant_id)
) WITH (fillfactor = 50);

CREATE TABLE tenant_weights (                          -- 1 where there is no row
    tenant_id text PRIMARY KEY REFERENCES tenants,
    weight    double precision NOT NULL CHECK (weight > 0 AND weight <= 1000000)
);
