"""The position trace: what every layer looked at, row by row, and what must be true of it."""
