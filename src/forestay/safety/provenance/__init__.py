"""Where a file comes from: signed manifests, invisible watermarks and fingerprints of what was released."""
