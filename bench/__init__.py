"""Benches: each prints one table with a target beside each value."""
