"""A whole verification: units in worker processes, controls, and one case again."""
