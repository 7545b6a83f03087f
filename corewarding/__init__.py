"""Label-free reinforcement learning of reasoning models: Co-rewarding on Ray."""

__version__ = "0.1.0"
