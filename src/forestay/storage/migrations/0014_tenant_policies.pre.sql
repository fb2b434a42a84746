-- Policies of tenants: each judges whatever its tenant calls, beside the policy of the model. Owner: safety.

CREATE TABLE safety_tenants (
    tenant_id text PRIMARY KEY,
    policy_id text NOT NULL,
    reason    text NOT NULL,
    set_at    timestamptz NOT NULL DEFAULT now(),
    set_by    text NOT NULL
);
