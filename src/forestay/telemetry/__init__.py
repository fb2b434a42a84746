"""Facts, metrics, traces and logs: what happened, in words that judges and people read."""
