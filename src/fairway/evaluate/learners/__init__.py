"""Ways to learn from text that was already scored: one file each, settings and predictor."""
