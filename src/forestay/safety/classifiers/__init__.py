"""Detectors with weights, one module each, and the adapters of those that others run."""
