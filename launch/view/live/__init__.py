"""The page "Run" of the viewer: curves, ages, lanes and alarms of a run, from its files alone."""
