"""Attention as other projects call it: one file for each of their signatures."""
