"""What the operations ask of their tensors, and how they make their outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FLOATS = (torch.float32, torch.float16, torch.bfloat16)

# What wide loads need of an address, in bytes.
ALIGNMENT = 16

# The integer dtype that shows the bits of an element of so many bytes.
INTEGERS = {2: torch.int16, 4: torch.int32}

# An integer output that still holds this was not written.
SENTINEL = -0x5A5A_5A5A_5A5A_5A5A


def require(condition: bool, message: str) -> None:
    """Raise ``ValueError`` with ``message`` unless ``condition`` is true."""
    if not condition:
        raise ValueError(message)


def require_floats(op: str, tensors: Mapping[str, Tensor]) -> torch.dtype:
    """Check that all tensors share one supported float dtype and one device; return the dtype.

    Raises ``ValueError`` naming the tensors that disagree.
    """
    first, x = next(iter(tensors.items()))
    require(
        x.dtype in FLOATS,
        f"{op}: {first} has dtype {x.dtype}, expected float32, float16 or bfloat16",
    )
    for name, other in tensors.items():
        require(
            other.dtype == x.dtype,
            f"{op}: {name} has dtype {other.dtype} but {first} has {x.dtype}; cast one of them",
        )
    require_device(op, tensors)
    return x.dtype


def require_device(op: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise ``ValueError`` unless all tensors are on one device."""
    first, x = next(iter(tensors.items()))
    for name, other in tensors.items():
        require(
            other.device == x.device,
            f"{op}: {name} is on {other.device} but {first} is on {x.device}; move one of them",
        )


def require_shape(op: str, name: str, x: Tensor, *shape: int | None) -> None:
    """Raise ``ValueError`` unless ``x`` has this shape; None stands for any size."""
    wanted = "[" + ", ".join("any" if n is None else str(n) for n in shape) + "]"
    fits = x.dim() == len(shape) and all(
        n is None or n == m for n, m in zip(shape, x.shape, strict=True)
    )
    require(fits, f"{op}: {name} has shape {list(x.shape)}, expected {wanted}.")


def require_rows(op: str, name: str, x: Tensor) -> None:
    """Raise ``ValueError`` unless the last dimension of ``x`` is contiguous."""
    require(
        x.shape[-1] <= 1 or x.stride(-1) == 1,
        f"{op}: the last dimension of {name} has stride {x.stride(-1)}, expected 1; "
        f"call .contiguous()",
    )


def require_indices(op: str, name: str, ids: Tensor, length: int, limit: int) -> None:
    """Check an int64 index vector ``[length]``.

    On the CPU an index outside ``0 .. limit-1`` is a ``ValueError``. On a GPU that would take a
    synchronisation, so there the kernels leave NaN in the row instead.
    """
    require(ids.dtype == torch.int64, f"{op}: {name} has dtype {ids.dtype}, expected int64.")
    require_shape(op, name, ids, length)
    if ids.device.type == "cpu" and length > 0:
        low, high = int(ids.min()), int(ids.max())
        require(
            low >= 0 and high < limit,
            f"{op}: {name} holds values {low} .. {high}, expected 0 .. {limit - 1}",
        )


def require_twin(op: str, x: Tensor) -> None:
    """Raise ``ValueError`` if the CPU twin was asked for and ``x`` is elsewhere."""
    require(
        x.device.type == "cpu",
        f"{op}: twin=True is for CPU tensors, but the input is on {x.device}; drop twin",
    )


def poisoned(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An output that shows every element that a kernel did not write: NaN, or ``SENTINEL``."""
    fill = float("nan") if dtype.is_floating_point else SENTINEL
    return torch.full(shape, fill, dtype=dtype, device=device)


def dense(x: Tensor) -> Tensor:
    """``x``, or a copy of it where it is not contiguous or does not start on 16 bytes."""
    x = x.detach().contiguous()
    return x if x.data_ptr() % ALIGNMENT == 0 else x.clone()


def next_power_of_2(n: int) -> int:
    """The least power of two that is at least ``n`` (1 for n <= 1)."""
    return 1 << max(n - 1, 0).bit_length()


def to_numpy(x: Tensor) -> NDArray[np.float32]:
    """The values of a CPU tensor as a C-contiguous float32 array (exact for all ``FLOATS``)."""
    array: NDArray[np.float32] = x.detach().to(torch.float32).contiguous().numpy()
    return array


def from_numpy(array: NDArray[Any], dtype: torch.dtype) -> Tensor:
    """A float32 array as a tensor, rounded once (to nearest, ties to even) to ``dtype``.

    Raises ``TypeError`` for another array: numpy promotes in silence, and a float64 step on the
    way would be another arithmetic.
    """
    if array.dtype != np.float32:
        raise TypeError(f"the array has dtype {array.dtype}, expected float32")
    return torch.from_numpy(array).to(dtype)
