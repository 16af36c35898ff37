"""What a pair that is known by its name cannot take: told before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from kvparity_contracts.base import Fault
from kvparity_contracts.subjects import Attention

PASSED: tuple[str, ...] = ("order", "window", "softcap", "sinks")
"""Keys that are passed to both functions of a pair where a contract declares them."""
TAKES: Mapping[str, Collection[str]] = {
    "kvparity.pairs.sdpa": (),
    "kvparity.pairs.flashinfer": (),
    "kvparity_kernels.attention": ("order", "window", "softcap", "sinks"),
}
"""Of these, those that the functions of a module take."""


def pair_faults(subject: Attention) -> Iterator[Fault]:
    """Declared keys that a function of the subject does not take."""
    for key in PASSED:
        if getattr(subject, key) is None:
            continue
        for name in (subject.prefill, subject.decode):
            takes = TAKES.get(name.partition(":")[0], PASSED)
            if key not in takes:
                others = f"; it takes {', '.join(takes)}" if takes else ""
                message = f"found {key!r}, but {name} takes none{others}"
                yield Fault(("subject", key), message, "a pair that takes it, or no such key")
                break
