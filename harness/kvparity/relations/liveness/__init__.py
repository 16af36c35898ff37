"""Relation *liveness*: which cached keys a row depends on."""
