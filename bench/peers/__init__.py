"""The best existing systems, each in an environment of its own, measured beside us in the same run."""
