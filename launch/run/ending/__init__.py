"""What ends a run: errors, stalls and signals; and what must not be left of it."""
