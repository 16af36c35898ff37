"""Relation *accuracy*: a path against float64, within limits."""
