"""The judge: the one process of a host that holds every model with weights, and the client that asks it."""
