"""One training run: its settings, its directory, training and judging; what the commands call."""
