"""What is computed in one tile of keys."""
