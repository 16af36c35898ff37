"""A running server as a subject."""
