"""Drills: real faults, put into real pipelines on purpose, to see whether they are noticed."""
