"""The durable queue: states, leases with fencing, retries, deadlines. A port, and its SQL adapter."""
