"""Scorers: programs of others that say how good an output is, run apart and watched themselves."""
