"""What a codec claims, checked against what it does."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.core.bits import differing
from kvparity.core.errors import SubjectError
from kvparity.labs.codec.coding import decode, encode, round_trip, using
from kvparity.labs.codec.protocol import NOTHING, Codec, Tensors

CLOSE = 1e-3  # of the bytes; a codec may round up, not leave out


@dataclass(frozen=True)
class CodecFindings:
    """``alone``: a token gets the same codes alone as together with any others. ``explained``: with
    all of its stages exact it gives back every bit but the sign of a zero, so its stages are all
    of its error.
    """

    alone: bool
    explained: bool


def nbytes(coded: Tensors) -> int:
    """Bytes that are really allocated for codes; memory that two tensors share counts once."""
    found = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in coded.values()}
    return sum(found.values())


def far(said: float, measured: float) -> bool:
    """Whether two numbers of bytes are not the same."""
    return not abs(said - measured) <= CLOSE * measured


def examine(codec: Codec, x: Tensor, fixed: Tensors, dtype: torch.dtype) -> CodecFindings:
    """Check the codec's claims on the keys or values ``x [n, kv_heads, head_dim]``.

    Raises ``SubjectError`` if its tensors take other bytes than it says, or do not hold all that
    decode needs.
    """
    coded = encode(codec, x, fixed, NOTHING)
    with using(codec):
        said = codec.bytes_per_token(x.shape[1], x.shape[2])
    taken = nbytes(coded) / len(x)
    if far(said, taken):
        raise SubjectError(
            f"codec {codec.name} says {said:g} bytes for a token of {x.shape[1]} heads of "
            f"{x.shape[2]}, but its tensors take {taken:g}"
        )
    _remembers_nothing(codec, x, fixed, dtype)
    every = frozenset(codec.stages)
    same = round_trip(codec, x, fixed, dtype, every).to(x.dtype)
    return CodecFindings(
        alone=not _neighbours_matter(codec, x, coded, fixed),
        explained=not bool(differing(same + 0.0, x + 0.0).any()),
    )


def _remembers_nothing(codec: Codec, x: Tensor, fixed: Tensors, dtype: torch.dtype) -> None:
    """Decode copies, after something else was encoded: a codec may have kept what it was given."""
    plain = round_trip(codec, x, fixed, dtype)
    copies = {name: t.clone() for name, t in encode(codec, x, fixed, NOTHING).items()}
    encode(codec, torch.zeros_like(x), fixed, NOTHING)
    if bool(differing(decode(codec, copies, x, fixed, dtype, NOTHING), plain).any()):
        raise SubjectError(
            f"codec {codec.name} decodes copies of its tensors to other numbers: it keeps "
            "something that it does not count"
        )


def _neighbours_matter(codec: Codec, x: Tensor, whole: Tensors, fixed: Tensors) -> bool:
    """Whether a token gets other codes alone than together with the others."""
    for token in sorted({0, len(x) // 2, len(x) - 1}):
        alone = encode(codec, x[token : token + 1], fixed, NOTHING)
        for name, codes in whole.items():
            if codes.dim() == 0 or len(codes) != len(x) or len(alone[name]) != 1:
                return True
            mine = codes[token : token + 1].contiguous().view(torch.uint8)
            if not torch.equal(mine, alone[name].contiguous().view(torch.uint8)):
                return True
    return False
