"""Which revisions are loaded where, decided by pure rules."""
