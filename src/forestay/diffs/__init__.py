"""Compares what two revisions make of the same request: media against media, with the noise of the control beside it.

Pure: arrays and numbers in, distances and verdicts out. Where the requests come from is `rollouts/shadow`'s business.
"""
