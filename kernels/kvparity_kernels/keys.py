"""Where the keys and values of a batch lie: any cache, contiguous or in pages."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class KeysValues:
    """Views of a cache and the place of each sequence in it. Nothing is copied.

    ``k``, ``v``: ``[slots, kv_heads, head_dim]``, last dimension contiguous, float32, float16 or
    bfloat16 (cast to the query's dtype when loaded). ``kv_lens``: int32 ``[B]``, visible keys.
    Either ``starts``: int64 ``[B]``, the slot of key 0, the others following; or ``block_table``:
    int32 ``[B, max_pages]`` with ``page`` slots per page. Slots that hold no visible key are never
    read. Raises ``ValueError`` for shapes, dtypes or devices that do not fit.
    """

    k: Tensor
    v: Tensor
    kv_lens: Tensor
    starts: Tensor | None = None
    block_table: Tensor | None = None
    page: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        if self.k.dim() != 3 or self.k.shape != self.v.shape:
            raise ValueError(
                f"k {tuple(self.k.shape)} and v {tuple(self.v.shape)} must both be "
                "[slots, kv_heads, head_dim]"
            )
        if self.k.dtype != self.v.dtype or self.k.dtype not in DTYPES:
            raise ValueError(
                f"k is {self.k.dtype} and v is {self.v.dtype}; they must agree and be float32, "
                "float16 or bfloat16"
            )
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
        for name in ("v", "kv_lens", "starts", "block_table"):
            tensor = getattr(self, name)
            if tensor is not None and tensor.device != self.k.device:
                raise ValueError(f"{name} is on {tensor.device}, k is on {self.k.device}")

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
