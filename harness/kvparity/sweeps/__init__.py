"""Sweeps: a matrix of verifications, the store of what ended, and what it says over versions."""
