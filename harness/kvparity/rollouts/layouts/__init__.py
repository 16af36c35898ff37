"""Recordings of other people's tools, as their files have them."""
