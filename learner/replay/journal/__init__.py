"""The journal of a run: what the replay buffer was told and what it decided, on disk before it is acknowledged."""
