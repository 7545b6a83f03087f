"""Label-free reinforcement learning of reasoning models: Co-rewarding on Ray."""
