"""Does a tree give the bits that the function gives, on data that are no probe?"""

from __future__ import annotations

import torch
from torch import Tensor

from kvparity.core.bits import differing
from kvparity.relations.order.errors import NotMeasured
from kvparity.relations.order.sides import Side
from kvparity.relations.order.storing import alphabet
from kvparity.relations.order.tree import SumTree


def replay(side: Side, tree: SumTree, *, seed: int = 0) -> tuple[int, int]:
    """How many results on random V have the bits that ``tree`` gives, of how many.

    In each key head a random half or more of the keys, a power of two of them, has equal weight and
    the others none, so weights and division are exact in whatever order they come. Each value has
    its negative at another key and magnitudes span more powers of two than a float32 has bits: the
    exact sum is zero, and what comes out is rounding alone, large enough to show in 16 bits. Every
    column and head is compared; 16-bit results near the middle of two are left out, because there
    the last bit of an exp would decide.

    Raises:
        ValueError: the tree has a fused node, for which the device's adder is needed.
        NotMeasured: no sum is rounded, so that every order gives these results; or the cache's
            format does not hold the values.
    """
    side, rng = side.reaching(side.cold), torch.Generator().manual_seed(seed)
    hot = 1 << (side.keys.bit_length() - 1)
    place = torch.rand(side.batch, side.heads.kv, side.keys, generator=rng).argsort(-1)
    chosen = place < hot
    v = _cancelling(side, place, hot, rng)
    total = tree.replay(v.transpose(0, 1)) / hot
    want = _rounded(side, total)
    if not want.any():
        raise NotMeasured("no sum of so few numbers is rounded, so every order gives these results")
    log2 = torch.where(chosen[:, :, None], 0.0, side.cold)
    out = side.run(*side.weighted(log2), v).out
    got = out.view(side.batch, side.heads.kv, side.group, side.heads.dim) + 0.0  # no -0
    firm = torch.ones_like(want, dtype=torch.bool)
    if side.out != torch.float32:
        firm = _rounded(side, total * (1 + 2.0**-19)) == _rounded(side, total * (1 - 2.0**-19))
    right = ~differing(got, want[:, :, None].expand_as(got))
    firm = firm[:, :, None].expand_as(right)
    return int((right & firm).sum()), int(firm.sum())


def _cancelling(side: Side, place: Tensor, hot: int, rng: torch.Generator) -> Tensor:
    """V ``[B, keys, Hkv, D]``: in each column the chosen keys hold values and their negatives.

    Columns that share a scale have magnitudes and places in common.
    """
    if side.format.static:
        lowest, highest = -14, 15  # the normal numbers of fp8_e5m2
    elif torch.float16 in (side.stored, side.out):
        lowest, highest = -13, 13
    else:
        lowest, highest = 0, (40 if side.coded else 23)  # codes have few bits
    half, group = hot // 2, side.format.group or 1
    shape = (side.batch, half, side.heads.kv, side.heads.dim)
    sizes = (*shape[:3], side.heads.dim // group)
    powers = torch.randint(lowest, highest + 1, sizes, generator=rng).float()
    powers = torch.exp2(powers).repeat_interleave(group, 3)
    if side.coded:
        values = alphabet(shape, side.format, rng) * powers
    else:
        values = ((torch.rand(shape, generator=rng) + 1.0) * powers).to(side.stored).float()
    pairs = torch.cat([values, -values], 1)
    # By column in an order of its own, or all columns would meet their negatives alike.
    mixed = torch.rand((*pairs.shape[:3], sizes[3]), generator=rng).argsort(1)
    pairs = pairs.gather(1, mixed.repeat_interleave(group, 3))
    v = torch.zeros(side.batch, side.keys, side.heads.kv, side.heads.dim)
    index = place.transpose(1, 2)  # [B, keys, Hkv]: which of the hot values a key holds
    picked = pairs.gather(1, index.clamp(max=hot - 1)[..., None].expand(v.shape))
    return torch.where((index < hot)[..., None], picked, v)


def _rounded(side: Side, x: Tensor) -> Tensor:
    return x.to(side.out).float() + 0.0
