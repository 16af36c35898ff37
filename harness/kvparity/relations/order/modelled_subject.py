"""What of a pair of kernels tells how its tensor cores add."""

from __future__ import annotations

from collections.abc import Sequence

from kvparity.relations.audit.request import Shape
from kvparity.subjects.pair.model import PairModel
from kvparity_contracts.subjects import OWN_KERNELS
from kvparity_kernels.order import ReductionOrder


def ask(subject: PairModel, keys: Sequence[int]) -> tuple[Shape, ReductionOrder, int]:
    """The shape, the order and the window to compile for.

    Raises ``ValueError`` for kernels of others, a format that no tensor core multiplies, and too
    few keys.
    """
    names = (subject.pair.prefill_name, subject.pair.decode_name)
    if names != OWN_KERNELS:
        raise ValueError(
            f"--as models only this project's own kernels ({' and '.join(OWN_KERNELS)}); found "
            f"{' and '.join(names)}"
        )
    execution = str(subject.execution).removeprefix("torch.")
    if execution == "float32":
        raise ValueError(
            "--as shows what tensor cores add; float32 is multiplied by plain fma, one rounded "
            "addition each. Expected bfloat16 or float16 (--dtype, or numerics.execution)"
        )
    if few := [n for n in keys if n < 1]:
        raise ValueError(f"--keys {few[0]}: expected at least 1 key")
    heads = subject.heads
    shape = Shape(
        heads.query,
        heads.kv,
        heads.dim,
        execution=execution,
        kv_cache=str(subject.store),
        window=subject.window > 0,
        softcap=subject.softcap > 0,
        sinks=subject.sinks,
    )
    return shape, subject.order or ReductionOrder(), subject.window
