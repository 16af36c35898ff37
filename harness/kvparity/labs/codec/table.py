"""A codec with a codebook: four bits per number, the index of an entry that lies close.

The table is NF4's (Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs", appendix
E): the quantiles of a normal distribution, scaled to -1 .. 1, with an exact zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.labs.codec.protocol import Exact, Stage, Tensors

NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
_LARGEST_HALF = 65504.0


@dataclass(frozen=True)
class Table:
    """Two indices in a byte, and one float16 scale, the largest number, per ``group`` elements."""

    group: int
    entries: tuple[float, ...] = NF4

    @property
    def name(self) -> str:
        """``nf4(group)``."""
        return f"nf4({self.group})"

    @property
    def stages(self) -> tuple[Stage, ...]:
        """No cast: the table is the grid."""
        return ("scale", "codebook", "accumulation")

    def bytes_per_token(self, kv_heads: int, head_dim: int) -> float:
        """Half a byte per element and two per group."""
        if head_dim % self.group or head_dim % 2:
            raise ValueError(
                f"{self.name} cannot store head dimension {head_dim}: expected an even number that "
                f"{self.group} divides"
            )
        return float(kv_heads * (head_dim // 2 + 2 * (head_dim // self.group)))

    def calibrate(self, x: Tensor) -> Tensors:
        """Nothing: scales are each token's own."""
        return {}

    def encode(self, x: Tensor, fixed: Tensors, exact: Exact) -> Tensors:
        """``codes`` uint8 (low nibble: even column) and ``scales`` float16; float64 if exact."""
        self.bytes_per_token(x.shape[1], x.shape[2])
        groups = x.double().reshape(*x.shape[:2], -1, self.group)
        scales = groups.abs().amax(3)
        if "scale" not in exact:
            scales = scales.clamp(max=_LARGEST_HALF).half()
        steps = scales.double()[..., None]
        shares = groups / steps.masked_fill(steps == 0, 1.0)
        if "codebook" in exact:
            return {"shares": shares, "scales": scales}
        codes = self._nearest(shares).flatten(2)
        return {"codes": codes[..., 0::2] | (codes[..., 1::2] << 4), "scales": scales}

    def decode(self, coded: Tensors, fixed: Tensors, dtype: torch.dtype, exact: Exact) -> Tensor:
        """Entry times scale, in float32 unless accumulation is exact."""
        scales = coded["scales"].double()[..., None]
        if "shares" in coded:
            shares = coded["shares"]
        else:
            pairs = coded["codes"]
            codes = torch.stack([pairs & 0x0F, pairs >> 4], 3).flatten(2)
            entries = self._entries(codes.device)[codes.long()]
            shares = entries.reshape(*entries.shape[:2], -1, self.group)
        # A scale that float16 rounds to zero makes zeros of its whole group.
        product = (shares * scales).flatten(2)
        return (product if "accumulation" in exact else product.float()).to(dtype)

    def _entries(self, device: torch.device) -> Tensor:
        return torch.tensor(self.entries, dtype=torch.float32, device=device).double()

    def _nearest(self, shares: Tensor) -> Tensor:
        """The index of the closest entry, the lower one where two are."""
        entries = self._entries(shares.device)
        middle = (entries[1:] + entries[:-1]) / 2
        return torch.searchsorted(middle, shares.contiguous()).to(torch.uint8)
