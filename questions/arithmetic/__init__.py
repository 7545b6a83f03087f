"""The built-in arithmetic world, its solver, and what makes the shipped base model."""
