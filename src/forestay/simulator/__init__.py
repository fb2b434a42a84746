"""A small world on a virtual clock that drives the platform's own decisions, for benches and tests."""
