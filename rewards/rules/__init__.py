"""The reward rules: their contract, a file per family with its objectives, and the table of all."""
