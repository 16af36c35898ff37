"""Products as an architecture's instructions compute them, where a process was asked for that.

Without a device a product is a chain of additions, each rounded to nearest: it shows an algorithm.
With one, products of 16-bit and 8-bit operands, and of float32 rounded to TF32, are those of its
matrix instruction (``tensor_cores``). Float32 as it is has no matrix instruction: Triton compiles
it to one fused multiply-add after the other, k ascending, which is computed here, too. Rows of
attention's weights are added in the tree of the compiled layout where that was read
(``row_trees``); maxima are the same in any tree. Other sums, exponentials and all else stay as
they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from kvparity_kernels import distinct, fixed_arithmetic, fused_products, row_trees, stream
from kvparity_kernels.fixed_arithmetic import Array
from kvparity_kernels.tensor_cores import (
    OPERANDS,
    Architecture,
    FusedAdd,
    Operand,
    UnmodelledError,
    unit,
)

_device: Architecture | None = None


@dataclass(frozen=True)
class Multiplied:
    """A matrix product was computed under the model of ``device``, of numbers in ``operand``."""

    device: Architecture
    operand: str


@dataclass(frozen=True)
class Summed:
    """Rows were added under the model of ``device``; ``read``: in the tree of its layout."""

    device: Architecture
    read: bool


def in_force() -> Architecture | None:
    """The architecture whose products this process computes, or None."""
    return _device


def use(device: Architecture | None) -> None:
    """Compute products as ``device`` does from now on, in the whole process; None: as before."""
    global _device
    _device = device


@contextmanager
def using(device: Architecture | None) -> Iterator[None]:
    """Compute products as ``device`` does inside."""
    before = _device
    use(device)
    try:
        yield
    finally:
        use(before)


def _fused(operand: Operand, how: FusedAdd) -> distinct.Product:
    return lambda a, b, start: fused_products.dot(a, b, start, operand, how)


def dot(a: Array, b: Array, start: Array, operand: str) -> Array:
    """``start + a @ b`` for ``[..., M, K]`` and ``[..., K, N]`` under what is in force.

    ``operand``: the format of the numbers in ``a`` and ``b``, as ``tensor_cores`` names it, or
    ``float32``, ``float64`` or an integer's.

    Raises:
        UnmodelledError: the device has no row for such operands.
    """
    if _device is None:
        return fixed_arithmetic.dot(a, b, start)
    if operand in OPERANDS:
        found = distinct.once(_fused(operand, unit(_device, operand)), a, b, start)
    elif operand == "float32":
        found = distinct.once(fixed_arithmetic.fma_dot, a, b, start)
    elif start.dtype.kind in "iu":  # sums of integers are exact in any order
        found = fixed_arithmetic.dot(a, b, start)
    else:
        raise UnmodelledError(
            f"products of {operand} on {_device} are not modelled: the table of tensor cores has "
            "no such operands"
        )
    if stream.heard(Multiplied):
        stream.emit(Multiplied(_device, operand))
    return found


def row_sum(x: Array, axis: int, *, bfloat16: bool = False) -> Array:
    """The sums along one axis: in the tree of the kernel that runs if it was read, else halved."""
    tree = row_trees.in_force()
    read = tree is not None and not bfloat16 and (x.ndim, axis) == (2, 1) and x.dtype == np.float32
    if _device is not None and x.dtype.kind == "f" and stream.heard(Summed):
        stream.emit(Summed(_device, read))
    if tree is not None and read:
        return tree.add(x)
    return fixed_arithmetic.tree_sum(x, axis, bfloat16=bfloat16)
