"""Sweeps: many runs of one configuration with other values of some keys, scheduled by Ray Tune, compared at the end."""
