"""What a pair that is known by its name cannot take: told before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from kvparity_contracts.base import Fault
from kvparity_contracts.subjects import Attention

PASSED: tuple[str, ...] = ("order", "window", "softcap", "sinks", "bias")
"""Keys that are passed to both functions of a pair where a contract declares them."""
DECODED: Mapping[str, str] = {"page": "block_table"}
"""Keys that change what decode alone is called with, and the keyword that it is then given."""
TAKES: Mapping[str, Collection[str]] = {
    "kvparity.pairs.sdpa": (),
    "kvparity.pairs.flashinfer": (),
    "kvparity_kernels.attention": ("order", "window", "softcap", "sinks", "page"),
}
"""Of these, those that the functions of a module take."""


def pair_faults(subject: Attention) -> Iterator[Fault]:
    """Declared keys that a function of the subject does not take."""
    for key in (*PASSED, *DECODED):
        if getattr(subject, key) is None:
            continue
        for name in (subject.decode,) if key in DECODED else (subject.prefill, subject.decode):
            takes = TAKES.get(name.partition(":")[0], (*PASSED, *DECODED))
            if key not in takes:
                others = f"; it takes {', '.join(takes)}" if takes else ""
                message = f"found {key!r}, but {name} takes none{others}"
                yield Fault(("subject", key), message, "a pair that takes it, or no such key")
                break
