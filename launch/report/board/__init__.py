"""What a run's numbers are called and mean: the tags, their pages on a board, and docs/metrics.md."""
