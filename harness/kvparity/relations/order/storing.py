"""Numbers of a probe as the codes of a cache, without a rounding; random ones as a writer does.

The scales of a probe are powers of two, so code times scale is exact wherever it is computed: what
is rounded on its way through a kernel is the sum that is looked at, never the store.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvparity.relations.order.errors import NotMeasured
from kvparity.subjects.pair.subject import AttentionSubject
from kvparity_kernels.store import StoreFormat, decode, encode

_TOP = {"fp8_e4m3": 8, "fp8_e5m2": 15, "int8": 6, "int4": 2}  # log2 of the largest power of two


def exactly(x: Tensor, format: StoreFormat, out: torch.dtype) -> tuple[Tensor, Tensor]:
    """Codes and scales that read as exactly ``x`` ``[B, keys, Hkv, D]`` in the dtype ``out``.

    Codes are ``[B, keys, Hkv, width]``; scales ``[Hkv]`` of fp8, one power of two for all, else
    ``[B, keys, Hkv, groups]``, a power of two for each group.

    Raises:
        NotMeasured: there are no such codes.
    """
    flat = x.flatten(0, 1)
    scale = _powers(flat, format)
    codes = _codes(flat, format, scale)
    if not torch.equal(decode(codes, scale, format, out).float(), flat):
        raise NotMeasured(f"{format} does not hold the numbers of this probe exactly")
    return _per_sequence(codes, x), scale if format.static else _per_sequence(scale, x)


def draw(x: Tensor, subject: AttentionSubject, part: str) -> tuple[Tensor, Tensor | None]:
    """``x`` ``[B, keys, Hkv, D]`` as the subject's cache stores it, with scales of any value.

    They are no powers of two: where a scale is applied, and what is rounded there, shows.
    """
    static = subject.static_scale(part)
    static = None if static is None else static.cpu()
    codes, scales = encode(x.flatten(0, 1).to(subject.execution), subject.store, static)
    return _per_sequence(codes, x), static if scales is None else _per_sequence(scales, x)


def _per_sequence(flat: Tensor, like: Tensor) -> Tensor:
    return flat.view(*like.shape[:2], *flat.shape[1:])


def alphabet(shape: Sequence[int], format: StoreFormat, rng: torch.Generator) -> Tensor:
    """Random numbers from 1 up to 2 that the format holds exactly, whatever power of two scales."""
    steps = {"fp8_e4m3": 8, "fp8_e5m2": 4, "int8": 64, "int4": 4}[format.name]
    top = 15 if format.name == "fp8_e4m3" else 2 * steps  # whose largest number is 1.75 * 2^8
    return torch.randint(steps, top, tuple(shape), generator=rng) / steps


def _powers(x: Tensor, format: StoreFormat) -> Tensor:
    """The power of two by which the largest number becomes the largest code that is one."""
    tops = (
        x.reshape(*x.shape[:2], format.groups(x.shape[2]), format.group).abs().amax(3)
        if format.dynamic
        else x.abs().amax().expand(x.shape[1])
    )
    exponents = torch.floor(torch.log2(tops.double())) - _TOP[format.name]
    return torch.where(tops == 0, 1.0, torch.exp2(exponents)).float().contiguous()


def _codes(x: Tensor, format: StoreFormat, scale: Tensor) -> Tensor:
    if format.static:
        return encode(x, format, scale)[0]
    steps = x.reshape(*scale.shape, format.group) / scale[..., None]
    codes = steps.round().flatten(2).to(torch.int8)
    if format.name == "int8":
        return codes
    nibbles = codes.view(torch.uint8) & 0x0F
    return nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)
