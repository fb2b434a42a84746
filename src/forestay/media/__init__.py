"""Media from and to the outside: guarded fetching, limited decoding, formats."""
