"""Which layers are coded, by what, with which stages exact; and one round trip, checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.labs.codec.protocol import NOTHING, Codec, Exact, Tensors
from kvparity.labs.codec.registry import CodecPair


@dataclass(frozen=True)
class Coding:
    """What happens to keys and values.

    ``layers``: the coded ones, counted as a ``CacheView`` counts. ``fixed[layer]``: what the two
    codecs calibrated there. ``dtype``: what codes are dequantised to.
    """

    pair: CodecPair
    dtype: torch.dtype
    layers: frozenset[int]
    fixed: Mapping[int, tuple[Tensors, Tensors]]
    exact: Exact = NOTHING

    def of(self, layers: frozenset[int]) -> Coding:
        """The same, coding other layers."""
        return replace(self, layers=layers)

    def with_exact(self, exact: Exact) -> Coding:
        """The same, with these stages exact."""
        return replace(self, exact=exact)

    def apply(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """What a reader gets of ``k``, ``v`` of one layer; float64 if accumulation is exact."""
        fixed = self.fixed[layer]
        return (
            round_trip(self.pair.k, k, fixed[0], self.dtype, self.exact),
            round_trip(self.pair.v, v, fixed[1], self.dtype, self.exact),
        )


@contextmanager
def using(codec: Codec) -> Iterator[None]:
    """Around a codec's own code: what it raises becomes a ``SubjectError`` that names it.

    ``ValueError`` is a codec's word for what it cannot code, and becomes ``UnsupportedError``.
    """
    try:
        yield
    except (SubjectError, UnsupportedError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except ValueError as error:
        raise UnsupportedError(f"codec {codec.name}: {error}") from error
    except (Exception, SystemExit) as error:
        raise SubjectError(f"codec {codec.name} raised {type(error).__name__}: {error}") from error


def encode(codec: Codec, x: Tensor, fixed: Tensors, exact: Exact) -> dict[str, Tensor]:
    """The codec's tensors, checked to be tensors. ``x`` is a copy, which a codec may spoil."""
    with using(codec):
        coded = codec.encode(x.clone(), fixed, exact)
    if not isinstance(coded, Mapping) or not all(isinstance(t, Tensor) for t in coded.values()):
        raise SubjectError(
            f"codec {codec.name}: encode gave {type(coded).__name__}, expected tensors by name"
        )
    return dict(coded)


def round_trip(
    codec: Codec, x: Tensor, fixed: Tensors, dtype: torch.dtype, exact: Exact = NOTHING
) -> Tensor:
    """``decode(encode(x))`` of one codec, ``[n, kv_heads, head_dim]``.

    In ``dtype``, or float64 if accumulation is exact. Raises ``SubjectError`` for another shape,
    dtype or device, for NaN and infinities, and for whatever the codec raises.
    """
    return decode(codec, encode(codec, x, fixed, exact), x, fixed, dtype, exact)


def decode(
    codec: Codec, coded: Tensors, x: Tensor, fixed: Tensors, dtype: torch.dtype, exact: Exact
) -> Tensor:
    """What the codec makes of ``coded``, checked to be as ``round_trip`` says. Like ``x``."""
    wanted = torch.float64 if "accumulation" in exact else dtype
    with using(codec):
        found = codec.decode(coded, fixed, wanted, exact)
    if not isinstance(found, Tensor) or (found.shape, found.dtype, found.device) != (
        x.shape,
        wanted,
        x.device,
    ):
        what = (
            f"{found.dtype} {list(found.shape)} on {found.device}"
            if isinstance(found, Tensor)
            else type(found).__name__
        )
        raise SubjectError(
            f"codec {codec.name}: decode gave {what}, expected {wanted} {list(x.shape)} on "
            f"{x.device}"
        )
    if not bool(torch.isfinite(found).all()):
        raise SubjectError(
            f"codec {codec.name} made NaN or infinities of finite numbers up to "
            f"{float(x.double().abs().max()):.3g}"
        )
    return found
