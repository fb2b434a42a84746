"""Judging text: its canonical form, its language, and a learned score for each category of harm."""
