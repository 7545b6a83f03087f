"""The configuration: its tree, its checks, and how it is read."""
