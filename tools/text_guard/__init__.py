"""What teaches the text detector: reading the prompt sets, our own contrast lines, fitting, and scoring honestly."""
