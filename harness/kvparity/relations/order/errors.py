"""What can go wrong while probing, as facts about the black box rather than about us."""

from __future__ import annotations


class NotATree(Exception):  # noqa: N818 - it is a finding, not a fault of the program
    """The answers fit no fixed summation tree: the order varies, or differs between places."""


class ProbeLied(Exception):  # noqa: N818 - likewise
    """A read-off is no whole number: the numbers that probe do not survive in this function."""


class NotMeasured(Exception):  # noqa: N818 - likewise
    """This part cannot be seen here, for the reason given; nothing was found out."""
