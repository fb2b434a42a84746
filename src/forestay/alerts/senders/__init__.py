"""Ways to reach a receiver, one adapter a kind; each gives an outcome and decides nothing."""
