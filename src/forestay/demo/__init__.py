"""The demonstration: a real platform, the unmodified client, a guided failure, and a table of promises kept."""
