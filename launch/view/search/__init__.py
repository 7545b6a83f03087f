"""What of a run's samples is shown: filters over the index, and the search in texts."""
