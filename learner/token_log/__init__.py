"""The token log: for a few questions of each update, what the correction made of every token. `corewarding view` shows it."""
