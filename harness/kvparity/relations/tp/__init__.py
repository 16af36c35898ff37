"""Relation tp-invariance: one decoder at several numbers of tensor-parallel ranks, bits."""
