"""Planted defects: each must be caught, or the check proves nothing."""
