"""What the mode did, and the error it raises."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


class NotInvariantError(RuntimeError):
    """A torch operation was called whose order of additions the mode cannot answer for."""


@dataclass
class InvariantReport:
    """Calls by aten name (``"mm"``, ``"mean.dim"``) while the mode was on.

    ``overridden``: computed in the fixed order. ``even``: elementwise, computed so that no place in
    the tensor is special. ``passed``: left to torch although it reduces or may reduce; empty
    unless ``strict=False``.
    """

    overridden: Counter[str] = field(default_factory=Counter)
    even: Counter[str] = field(default_factory=Counter)
    passed: Counter[str] = field(default_factory=Counter)
