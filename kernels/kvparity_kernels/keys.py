"""Where the keys and values of a batch lie: any cache, contiguous or in pages."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity_kernels.store.format import StoreFormat


@dataclass(frozen=True)
class KeysValues:
    """Views of a cache and the place of each sequence in it. Nothing is copied.

    ``k``, ``v``: ``[slots, kv_heads, head_dim]``, last dimension contiguous, float32, float16 or
    bfloat16 (cast to the query's dtype when loaded). ``kv_lens``: int32 ``[B]``, the keys of each
    sequence. Either ``starts``: int64 ``[B]``, the slot of key 0, the others following; or
    ``block_table``: int32 ``[B, max_pages]`` with ``page`` slots per page. Slots that hold no
    visible key are never read.

    ``format``: what k and v hold, as ``store.encode`` wrote it (None: plain floats); then they
    are ``[slots, kv_heads, storage_width]`` in its dtype, and ``k_scale``, ``v_scale`` float32
    ``[kv_heads]`` for fp8 (None: 1) or ``[slots, kv_heads, groups]``, last dimension contiguous,
    for integers. ``ring``: if not 0, key p lies in place ``p % ring`` of its sequence, and only
    a window may look at it. Raises ``ValueError`` for shapes, dtypes or devices that do not fit.
    """

    k: Tensor
    v: Tensor
    kv_lens: Tensor
    starts: Tensor | None = None
    block_table: Tensor | None = None
    page: int = 0
    format: StoreFormat | None = None
    k_scale: Tensor | None = None
    v_scale: Tensor | None = None
    ring: int = 0

    def __post_init__(self) -> None:
        if self.k.dim() != 3 or self.k.shape != self.v.shape:
            raise ValueError(
                f"k {tuple(self.k.shape)} and v {tuple(self.v.shape)} must both be "
                "[slots, kv_heads, head_dim]"
            )
        wanted = DTYPES if self.format is None else (self.format.storage_dtype,)
        if self.k.dtype != self.v.dtype or self.k.dtype not in wanted:
            expected = (
                "float32, float16 or bfloat16, or have a format"
                if self.format is None
                else f"{wanted[0]} for {self.format}"
            )
            raise ValueError(
                f"k is {self.k.dtype} and v is {self.v.dtype}; they must agree and be {expected}"
            )
        for name in ("k_scale", "v_scale"):
            self._check_scale(name)
        if self.ring < 0:
            raise ValueError(f"ring is {self.ring}; it must be a number of slots, or 0")
        if self.k.shape[-1] > 1 and (self.k.stride(-1) != 1 or self.v.stride(-1) != 1):
            raise ValueError("the last dimension of k and v must be contiguous; use .contiguous()")
        _integers("kv_lens", self.kv_lens, torch.int32, 1)
        batch = self.kv_lens.shape[0]
        if (self.starts is None) == (self.block_table is None):
            raise ValueError("give either starts (contiguous keys) or block_table (pages)")
        if self.starts is not None:
            _integers("starts", self.starts, torch.int64, 1)
            if self.starts.shape[0] != batch or self.page:
                raise ValueError(
                    f"starts {tuple(self.starts.shape)} must be [{batch}], and page 0, "
                    f"not {self.page}"
                )
        if self.block_table is not None:
            _integers("block_table", self.block_table, torch.int32, 2)
            if self.block_table.shape[0] != batch or self.page < 1:
                raise ValueError(
                    f"block_table {tuple(self.block_table.shape)} must be [{batch}, max_pages], "
                    f"and page positive, not {self.page}"
                )
            if self.block_table.stride(1) != 1 and self.block_table.shape[1] > 1:
                raise ValueError("the rows of block_table must be contiguous")
        for name in ("v", "kv_lens", "starts", "block_table", "k_scale", "v_scale"):
            tensor = getattr(self, name)
            if tensor is not None and tensor.device != self.k.device:
                raise ValueError(f"{name} is on {tensor.device}, k is on {self.k.device}")

    def _check_scale(self, name: str) -> None:
        scale, format = getattr(self, name), self.format
        if format is None or not (format.static or format.dynamic):
            if scale is not None:
                raise ValueError(f"{name} is given, but {format or 'a plain float'} has no scales")
            return
        slots, heads, _ = self.k.shape
        groups = format.groups(self.head_dim)
        shape = (slots, heads, groups) if format.dynamic else (heads,)
        if scale is None and format.static:
            return
        if scale is None or scale.dtype != torch.float32 or scale.shape != shape:
            found = "missing" if scale is None else f"{scale.dtype} {tuple(scale.shape)}"
            raise ValueError(f"{name} is {found}; {format} needs torch.float32 {shape}")
        if scale.shape[-1] > 1 and scale.stride(-1) != 1:
            raise ValueError(f"the last dimension of {name} must be contiguous; use .contiguous()")

    @property
    def head_dim(self) -> int:
        """The numbers per key and head; k may hold two in an element."""
        width = self.k.shape[-1]
        return 2 * width if self.format is not None and self.format.name == "int4" else width

    @property
    def batch(self) -> int:
        """The number of sequences."""
        return self.kv_lens.shape[0]


DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def _integers(name: str, tensor: Tensor, dtype: torch.dtype, dims: int) -> None:
    if tensor.dtype != dtype or tensor.dim() != dims:
        raise ValueError(
            f"{name} is {tensor.dtype} with {tensor.dim()} dimensions; expected {dtype} with {dims}"
        )
    if dims == 1 and tensor.numel() > 1 and tensor.stride(0) != 1:
        raise ValueError(f"{name} must be contiguous; use .contiguous()")
