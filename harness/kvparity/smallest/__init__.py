"""The smallest case that fails in the same way: what is taken away, in which order, and the search.

Knows no subject: whether a case fails is asked of the caller.
"""
