"""Elementwise operations on the CPU, computed so that no place in a tensor is special.

Torch computes whole vectors with SIMD code and what is left over, or not contiguous, one by one
with other code; the two differ in the last bit for ``silu``, ``pow`` and others. So the elements
are laid out contiguously and padded, and no vector is ever left over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kvparity_kernels.relied.torch import tree_leaves, tree_map_only

# A multiple of two vectors of every instruction set (AVX-512, 16-bit floats: 64 elements).
WIDTH = 256
COPIES = 64

# Vector code of these picks its algorithm by the largest argument in the vector (Sleef, which
# torch uses where it has no MKL), so each element is given a vector of its own.
ALONE = frozenset({"sin", "cos", "tan"})


def even(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, alone: bool
) -> Tensor:
    """``func(*args, **kwargs)`` for CPU tensors that broadcast, every element alike.

    ``alone`` gives each element a vector of its own. Tensors without dimensions stay so, because
    they count for less in type promotion.
    """
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    sizes = [x.shape for x in tensors]
    shape = torch.broadcast_shapes(*sizes)  # type: ignore[no-untyped-call] # torch leaves it so
    count = shape.numel()
    if count == 0:
        return func(*args, **kwargs)  # type: ignore[no-any-return] # an operation is untyped
    scalars = all(x.dim() == 0 for x in tensors)

    def lay(x: Tensor) -> Tensor:
        if x.dim() == 0 and not scalars:
            return x
        flat = x.expand(shape).reshape(-1)
        if alone:
            return flat[:, None].expand(-1, COPIES).reshape(-1)
        return torch.cat([flat, flat.new_ones(-count % WIDTH)])

    args, kwargs = tree_map_only(Tensor, lay, (args, kwargs))
    y: Tensor = func(*args, **kwargs)
    y = y.view(-1, COPIES)[:, 0] if alone else y[:count]
    return y.reshape(shape)
