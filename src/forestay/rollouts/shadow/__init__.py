"""The shadow of a rollout: chosen requests answered once more by the control and by the candidate, and compared."""
