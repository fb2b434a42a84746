"""Adapters of what keeps state: Postgres, Valkey, the object store, and the embedded servers of a laptop."""
