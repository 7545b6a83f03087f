"""The reports of a run and of an evaluation: run directory, log, terminal, statistics, summary, trace."""
