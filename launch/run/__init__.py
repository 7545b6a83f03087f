"""One training run: its inputs, placement, parts, controller and publications."""
