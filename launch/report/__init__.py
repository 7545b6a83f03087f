"""What a user sees of a run: run directory, log, terminal, summary, trace."""
