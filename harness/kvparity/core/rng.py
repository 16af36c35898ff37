"""Random numbers keyed by what they are for, never by a place in a batch.

Every draw is a pure function of (seed, sequence id, position, lane): SplitMix64's output function
(Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators") over a counter. The
same key gives the same number on every device and in every batch.
"""

from __future__ import annotations

import hashlib
import math
import struct

import torch
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def _signed(value: int) -> int:
    """The int64 that has the same 64 bits as ``value``."""
    return struct.unpack("<q", struct.pack("<Q", value & (2**64 - 1)))[0]  # type: ignore[no-any-return] # struct is untyped


def shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift: torch's int64 shift copies the sign bit."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def stream(seed: int, name: str, purpose: str) -> int:
    """The 64-bit key of one stream: ``purpose`` (``token``, ``q``, ...) of one sequence."""
    digest = hashlib.sha256(f"{seed}\0{purpose}\0{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def splitmix64(key: int, counters: Tensor) -> Tensor:
    """Int64 bits, one per int64 counter; those of the stream with this seed count from 1."""
    z = (counters * _signed(_GAMMA)).add_(_signed(key))  # in place: half the time goes to memory
    z.bitwise_xor_(shift_right(z, 30)).mul_(_signed(_MIX_1))
    z.bitwise_xor_(shift_right(z, 27)).mul_(_signed(_MIX_2))
    return z.bitwise_xor_(shift_right(z, 31))


def uniform(key: int, counters: Tensor) -> Tensor:
    """Float64 in (0, 1), one per int64 counter.

    52 random bits and a half: with 53 the half would round, and up to 1.
    """
    return shift_right(splitmix64(key, counters), 12).double().add_(0.5).mul_(2.0**-52)


def normal(key: int, positions: Tensor, width: int) -> Tensor:
    """Standard normals, float64 ``[len(positions), width]`` (Box and Muller 1958).

    Row ``i`` depends on ``positions[i]`` alone, so a longer sequence has the same first rows.
    """
    lane = torch.arange(width, device=positions.device)
    counters = (positions[:, None] * width + lane).mul_(2)
    radius = uniform(key, counters).log_().mul_(-2.0).sqrt_()
    return radius.mul_(uniform(key, counters.add_(1)).mul_(2.0 * math.pi).cos_())


def sample(logits: Tensor, *, temperature: float, seed: int, name: str, position: int) -> int:
    """Draw the token at ``position`` of sequence ``name`` from ``logits`` ``[vocab]``.

    Inverse transform sampling in float64 at ``temperature``, with the one uniform number that
    belongs to (seed, name, position). On the CPU: a running sum on CUDA has no fixed order.
    """
    weights = torch.softmax(logits.cpu().double() / temperature, dim=-1)
    total = torch.cumsum(weights, dim=-1)
    counter = torch.tensor([position], dtype=torch.int64)
    point = uniform(stream(seed, name, "token"), counter) * total[-1]
    token = torch.searchsorted(total, point, right=True)
    return int(token.clamp(max=logits.shape[-1] - 1))
