"""Guardrails at inference time: what is judged, by whom, under which policy, and what follows. See decision 0008."""
