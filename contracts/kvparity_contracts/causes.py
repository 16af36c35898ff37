"""Why two paths part: the closed list of causes, and the operations in which a cause can lie."""

from __future__ import annotations

from typing import Literal

CauseKind = Literal[
    "reduction order",
    "another kernel",
    "another instruction",
    "mask or window",
    "position",
    "memory",
    "store",
    "weights or tokens",
    "logprob semantics",
    "not deterministic",
    "traced program",
    "unknown",
    "no difference",
]
"""The kind of a cause. What each needs as evidence is in ``docs/locate.md``."""
Part = Literal[
    "tokens", "norm", "linear", "rotary", "cache", "attention", "sampler", "program", "other"
]
"""The part of a model in which the first operation lies that parts by itself."""
