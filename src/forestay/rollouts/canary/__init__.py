"""Judging a candidate revision against the control while both serve, at every look."""
