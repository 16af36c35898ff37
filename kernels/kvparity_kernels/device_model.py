"""Products as an architecture's instructions compute them, where a process was asked for that.

Without a device a product is a chain of additions, each rounded to nearest: it shows an algorithm.
With one, products of 16-bit and 8-bit operands, and of float32 rounded to TF32, are those of its
matrix instruction (``tensor_cores``). Float32 as it is has no matrix instruction: Triton compiles
it to one fused multiply-add after the other, k ascending, which is computed here, too. Sums and
maxima of a row, exponentials and all else stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kvparity_kernels import distinct, fixed_arithmetic, fused_products, stream
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
