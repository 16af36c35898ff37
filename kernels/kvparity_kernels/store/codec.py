"""From numbers to codes and back, element by element, in torch.

Every step is one correctly rounded operation on one element, or a maximum, so the bits depend
neither on how many tokens there are nor on their places, and are the same on every device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kvparity_kernels.arguments import FLOATS, require
from kvparity_kernels.store.format import StoreFormat

_NAN_CODE = 0x7F  # of both fp8 formats, as cvt.rn.satfinite writes it
_LIMITS = {"fp8_e4m3": 448.0, "fp8_e5m2": 57344.0, "int8": 127.0, "int4": 7.0}


def encode(
    x: Tensor, format: StoreFormat, scale: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """The codes of ``x[n, H, D]``, and their scales where the format stores them.

    ``x``: float32, float16 or bfloat16. ``scale``: float32 ``[H]``, positive, of fp8 alone (None:
    1; in a format per tensor all H are equal). Returns codes ``[n, H, storage_width]`` and
    float32 scales ``[n, H, D / group]`` or None.

    A float is cast, to nearest, and may overflow to infinity. fp8 is ``x / scale`` in float32,
    then to nearest, ties to even, saturating as ``cvt.rn.satfinite``: beyond the largest finite
    value, and for infinities, that value with the sign; NaN is 0x7F. An integer has the scale
    ``max |x| / 127`` (int4: ``/ 7``) of its group in float32 and the code ``x / scale`` to nearest,
    ties to even, within -127 .. 127 (-7 .. 7); a group of zeros, or of numbers so small that the
    scale is 0, becomes +0, and a group with NaN or an infinity has a NaN scale, so that all of it
    reads as NaN. int4: low nibble = even column, two's complement.
    Raises ``ValueError`` for shapes, dtypes, devices and scales that do not fit.
    """
    require(
        x.dim() == 3 and x.dtype in FLOATS,
        f"encode: x is {x.dtype} {list(x.shape)}, expected float32, float16 or bfloat16 "
        "[tokens, heads, head_dim]",
    )
    groups = format.groups(x.shape[2])
    if format.dynamic:
        require(scale is None, f"encode: {format} computes its scales; give none")
        return _integers(x.float(), format, groups)
    if format.static:
        codes = x.float() / _static(scale, format, x)[:, None]
        limit = _LIMITS[format.name]
        stored = codes.clamp(-limit, limit).to(format.storage_dtype)
        patterns = stored.view(torch.uint8).masked_fill(codes.isnan(), _NAN_CODE)
        return patterns.view(format.storage_dtype), None
    require(scale is None, f"encode: {format} is stored without scales; give none")
    return x.to(format.storage_dtype).contiguous(), None


def decode(codes: Tensor, scale: Tensor | None, format: StoreFormat, dtype: torch.dtype) -> Tensor:
    """The numbers that a reader gets, ``[n, H, D]`` in ``dtype``.

    ``codes`` as ``encode`` gives them; ``scale``: float32 ``[H]`` or None (1) for fp8,
    ``[n, H, D / group]`` for integers, None for floats. The float32 product code * scale is rounded
    again, to ``dtype``. Raises ``ValueError`` for what does not fit.
    """
    require(dtype in FLOATS, f"decode: to {dtype}; expected float32, float16 or bfloat16")
    require(
        codes.dim() == 3 and codes.dtype == format.storage_dtype,
        f"decode: codes are {codes.dtype} {list(codes.shape)}; {format} is stored as "
        f"{format.storage_dtype} [tokens, heads, width]",
    )
    if format.dynamic:
        return _products(codes, scale, format).to(dtype)
    if format.static:
        return (codes.float() * _static(scale, format, codes)[:, None]).to(dtype)
    require(scale is None, f"decode: {format} is stored without scales; give none")
    return codes.to(dtype)


def round_trip(x: Tensor, format: StoreFormat, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """What a reader gets of what a writer wrote: ``decode(encode(x))`` in ``dtype``."""
    codes, scales = encode(x, format, scale)
    return decode(codes, scales if format.dynamic else scale, format, dtype)


def _static(scale: Tensor | None, format: StoreFormat, like: Tensor) -> Tensor:
    heads = like.shape[1]
    if scale is None:
        return torch.ones(heads, device=like.device)
    require(
        scale.dtype == torch.float32 and scale.shape == (heads,) and scale.device == like.device,
        f"{format}: the scales are {scale.dtype} {list(scale.shape)} on {scale.device}, expected "
        f"float32 [{heads}] on {like.device}",
    )
    # Elsewhere the check would wait for the device, and a tracer cannot look at numbers.
    if scale.device.type == "cpu" and not torch.compiler.is_compiling():
        require(
            bool(((scale > 0) & scale.isfinite()).all()),
            f"{format}: every scale must be positive and finite, found {scale.tolist()}",
        )
        require(
            format.per_head or heads == 0 or bool((scale == scale[0]).all()),
            f"{format} has one scale, found {scale.tolist()}; write {format.name}(head)",
        )
    return scale


def _integers(x: Tensor, format: StoreFormat, groups: int) -> tuple[Tensor, Tensor]:
    limit = _LIMITS[format.name]
    grouped = x.reshape(*x.shape[:2], groups, format.group)
    # By a tensor: on CUDA, torch divides by a number as it multiplies by its reciprocal.
    scales = grouped.abs().amax(3) / torch.full((1,), limit, device=x.device)
    scales = scales.masked_fill(~scales.isfinite(), torch.nan)
    steps = scales.masked_fill(scales == 0, 1.0)[..., None]
    codes = (grouped / steps).round().clamp(-limit, limit)
    codes = codes.masked_fill(scales.isnan()[..., None], 0.0).flatten(2).to(torch.int8)
    if format.name == "int8":
        return codes, scales
    nibbles = codes.view(torch.uint8) & 0x0F
    return nibbles[..., 0::2] | (nibbles[..., 1::2] << 4), scales


def _products(codes: Tensor, scales: Tensor | None, format: StoreFormat) -> Tensor:
    if format.name == "int4":
        low, high = codes & 0x0F, codes >> 4
        nibbles = torch.stack([low, high], 3).flatten(2).to(torch.int8)
        codes = torch.where(nibbles > 7, nibbles - 16, nibbles)
    wanted = (*codes.shape[:2], format.groups(codes.shape[2]))
    require(
        scales is not None
        and scales.dtype == torch.float32
        and scales.shape == wanted
        and scales.device == codes.device,
        f"decode: {format} needs float32 scales {list(wanted)} on {codes.device}, found "
        + ("none" if scales is None else f"{scales.dtype} {list(scales.shape)} on {scales.device}"),
    )
    assert scales is not None
    grouped = codes.float().reshape(*wanted, format.group)
    return (grouped * scales[..., None]).flatten(2)
