"""The replay buffer: admission, joining, scoring, and what leaves it."""
