"""Some rows of every case, computed again by a process that has not seen the other side.

Two sides that share a memo, a static buffer or any other state may agree on bits that neither would
give alone. What a fresh process gives for the same rows cannot come from the other side.
"""
