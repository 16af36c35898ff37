"""Check, allocate, launch."""

from __future__ import annotations

import torch
from torch import Tensor

from kvparity_kernels import arguments as arg
from kvparity_kernels.rope import twin as cpu

BLOCK = 1024
NUM_WARPS = 4


def tables(positions: Tensor, inv_freq: Tensor, *, twin: bool = False) -> tuple[Tensor, Tensor]:
    """``cos`` and ``sin`` of ``float32(position) * inv_freq``, float32 ``[T, D/2]`` each.

    One product rounded to float32, then the function of that angle, as in Hugging Face's rotary
    embedding (which rounds the tables to the model's dtype afterwards; these stay float32).
    ``positions`` int64 ``[T]``, ``inv_freq`` float32 ``[D/2]``. An entry depends on its own
    position alone. Raises ``ValueError``.
    """
    arg.require_shape("rope", "positions", positions, None)
    arg.require_shape("rope", "inv_freq", inv_freq, None)
    arg.require(
        positions.dtype == torch.int64,
        f"rope: positions have dtype {positions.dtype}, expected int64",
    )
    arg.require(
        inv_freq.dtype == torch.float32,
        f"rope: inv_freq has dtype {inv_freq.dtype}, expected float32",
    )
    arg.require_device("rope", {"positions": positions, "inv_freq": inv_freq})
    tokens, half = positions.shape[0], inv_freq.shape[0]
    arg.require(half > 0, "rope: inv_freq is empty")
    if twin:
        arg.require_twin("rope", positions)
        return cpu.tables(positions, inv_freq)

    from kvparity_kernels.launch import launch
    from kvparity_kernels.rope import kernels

    cos = arg.poisoned((tokens, half), torch.float32, positions.device)
    sin = arg.poisoned((tokens, half), torch.float32, positions.device)
    launch(
        kernels.tables,
        (-(-tokens * half // BLOCK),),
        POSITIONS=positions.contiguous(),
        INV_FREQ=inv_freq.contiguous(),
        COS=cos,
        SIN=sin,
        total=tokens * half,
        HALF=half,
        BLOCK=BLOCK,
        num_warps=NUM_WARPS,
    )
    return cos, sin


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, twin: bool = False) -> Tensor:
    """Rotate the pairs ``(d, d + D/2)`` of ``x[T, H, D]`` by ``tables``; ``[T, H, D]`` like ``x``.

    ``low * cos - high * sin`` and ``high * cos + low * sin``: products and sums are rounded
    separately in float32, the result once to the dtype of ``x``. (Hugging Face rounds the tables
    and every product to that dtype; in float32 the two agree.) The last dimension of ``x`` is
    contiguous. Raises ``ValueError``.
    """
    arg.require_shape("rope", "x", x, None, None, None)
    tokens, heads, width = x.shape
    arg.require(width % 2 == 0 and width > 0, f"rope: x has {width} channels, expected even")
    arg.require(heads > 0, "rope: x has no heads")
    for name, table in (("cos", cos), ("sin", sin)):
        arg.require_shape("rope", name, table, tokens, width // 2)
        arg.require(
            table.dtype == torch.float32,
            f"rope: {name} has dtype {table.dtype}, expected float32",
        )
    dtype = arg.require_floats("rope", {"x": x})
    arg.require_device("rope", {"x": x, "cos": cos, "sin": sin})
    arg.require_rows("rope", "x", x)
    if twin:
        arg.require_twin("rope", x)
        return cpu.rotate(x, cos, sin)

    from kvparity_kernels.launch import launch
    from kvparity_kernels.rope import kernels

    y = arg.poisoned((tokens, heads, width), dtype, x.device)
    launch(
        kernels.rotate,
        (tokens,),
        X=x.detach(),
        COS=cos.contiguous(),
        SIN=sin.contiguous(),
        Y=y,
        x_token=x.stride(0),
        x_head=x.stride(1),
        HEADS=heads,
        HALF=width // 2,
        BLOCK_H=arg.next_power_of_2(heads),
        BLOCK_D=arg.next_power_of_2(width // 2),
        num_warps=NUM_WARPS,
    )
    return y


def rope(x: Tensor, positions: Tensor, inv_freq: Tensor, *, twin: bool = False) -> Tensor:
    """Rotary embedding of ``x[T, H, D]`` at ``positions`` (int64 ``[T]``): tables, then rotate.

    A model makes the tables once per step and calls ``rotate`` in every layer.
    """
    return rotate(x, *tables(positions, inv_freq, twin=twin), twin=twin)
