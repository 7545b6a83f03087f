"""Rollout side: the engine protocol and its engines, the rollout actor and its fault-tolerant group."""
