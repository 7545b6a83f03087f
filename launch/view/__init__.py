"""The viewer of a run's samples: `corewarding view` and `corewarding samples`, from the run's files alone."""
