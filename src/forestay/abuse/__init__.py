"""Judges of misuse: signals from stored calls, rules as data, and who should stand under what."""
