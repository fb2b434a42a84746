"""From files to what detectors can judge: stills, frames, and what is said in sound."""
