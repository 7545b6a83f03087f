"""What a run's journal says, for people: `corewarding journal`."""
