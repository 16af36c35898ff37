"""Triton kernels whose reductions run in one fixed order, each beside its float64 twin.

Nothing is imported here: ``kvparity_kernels.runtime`` must be able to choose between the
interpreter and compiled kernels before any kernel module is loaded.
"""
