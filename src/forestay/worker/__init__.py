"""The process beside the devices: claims requests, hosts models, checks outputs, finishes."""
