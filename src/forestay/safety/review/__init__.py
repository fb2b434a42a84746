"""People who look again at what the guard stopped: items, votes, appeals, and the sealed copies that they look at."""
