"""Numbers of ranks that a decoder's checkpoint cannot be cut into, told before it is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from kvparity_contracts.base import Fault
from kvparity_contracts.loader import LoadedContract
from kvparity_contracts.ranks_check import TpInvariance
from kvparity_contracts.subjects import Decoder

_SHARED = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
"""What ranks share, as a ``config.json`` names it."""
_BIGGEST = 4_000_000
"""Bytes; a bigger file is left to the loader."""


def rank_faults(loaded: LoadedContract) -> Iterator[Fault]:
    """Of every check over ranks, where the checkpoint's ``config.json`` can be read."""
    subject = loaded.contract.subject
    if not isinstance(subject, Decoder) or subject.checkpoint is None:
        return
    file = loaded.base / subject.checkpoint / "config.json"
    counts = _counts(file)
    for i, check in enumerate(loaded.contract.checks):
        for j, size in enumerate(check.ranks if isinstance(check, TpInvariance) else ()):
            for name, count in counts.items():
                if count % size:
                    expected = f"a number that divides {name} ({count}) of {file}"
                    yield Fault(("checks", i, "ranks", j), f"found {size} ranks", expected)


def _counts(file: Path) -> dict[str, int]:
    """Those that the file states; what is wrong with it is told when it is loaded."""
    try:
        keys = json.loads(file.read_bytes()) if file.stat().st_size <= _BIGGEST else None
    except (OSError, ValueError, RecursionError):
        return {}
    found = {name: keys.get(name) for name in _SHARED} if isinstance(keys, dict) else {}
    return {name: count for name, count in found.items() if type(count) is int and count > 0}
