"""Actors' processes as copies of one that has imported torch and transformers already."""
