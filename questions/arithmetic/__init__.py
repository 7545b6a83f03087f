"""The built-in arithmetic world, its solver, and the programs that make and measure the shipped base model."""
