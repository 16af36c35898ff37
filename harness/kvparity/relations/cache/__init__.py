"""Relation *cache*: what two paths' caches hold, and what was written."""
