"""Foreign code runs apart: in a process of its own, which tells its parent plain data only."""
