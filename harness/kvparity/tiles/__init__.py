"""Which other tiles give the base's bits here: measured, in force, and checked before a run."""
