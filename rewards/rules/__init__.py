"""The reward rules: what one is, the table of all, and a file per family."""
