"""How traffic moves from one revision of a model to the next."""
