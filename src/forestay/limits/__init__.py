"""Limits and budgets: who may ask for how much, counted exactly over every gateway."""
