"""What a run does with its journal: begins it, and makes updates again from it."""
