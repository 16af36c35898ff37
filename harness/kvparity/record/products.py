"""Which products a path computed, where those of a device were asked for: the model's, or torch's.

The model reaches what runs in Triton's interpreter and the twins of this project's kernels. Of what
torch computes beside them, every operation that multiplies matrices or adds floats is counted, so
that a verdict cannot rest on it unseen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from kvparity_kernels import device_model
from kvparity_kernels.device_model import Multiplied, Summed
from kvparity_kernels.overrides.watch import watching_sums
from kvparity_kernels.stream import listening

MODEL = "products of "
"""Before the device and the format of the operands, such as ``sm_90 bfloat16``."""
ROWS = {True: "rows added as on ", False: "rows halved beside the products of "}
"""Before the device: kernels' sums along a row, in the tree of its layout or in the interpreter's.
"""
TORCH = "torch's own "
"""Before the name of an operation of torch's that multiplied or added floats."""


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Counts of the products inside by the names above; of none, if no device was asked for."""
    found: Counter[str] = Counter()

    def hear(event: Multiplied) -> None:
        found[f"{MODEL}{event.device} {event.operand}"] += 1

    def add(event: Summed) -> None:
        found[f"{ROWS[event.read]}{event.device}"] += 1

    if device_model.in_force() is None:
        yield found
        return
    with listening(Multiplied, hear), listening(Summed, add), watching_sums() as sums:
        yield found
    found.update({TORCH + name: count for name, count in sums.items()})
