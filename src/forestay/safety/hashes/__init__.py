"""Known pictures by their hash: PDQ, an exact index, banks of hashes, and what a match leads to."""
