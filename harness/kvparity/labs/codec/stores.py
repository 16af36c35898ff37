"""The store formats of ``kvparity_kernels.store`` as codecs, with stages to switch off."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.labs.codec.protocol import Exact, Stage, Tensors
from kvparity_kernels.store import StoreFormat, decode, encode

_LARGEST = {"fp8_e4m3": 448.0, "fp8_e5m2": 57344.0, "int8": 127.0, "int4": 7.0}


@dataclass(frozen=True)
class StoreCodec:
    """One store format.

    As a cache keeps it, ``kvparity_kernels.store`` does the work. With a stage exact the same
    arithmetic runs here in float64, without that stage's rounding; with none exact both give the
    same bits, as a test shows. The scale of an fp8 format is the largest number of the calibration
    tokens, per layer or per head, over the largest number of the format.
    """

    format: StoreFormat

    @property
    def name(self) -> str:
        """The canonical text of the format."""
        return str(self.format)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """A plain cast has one stage, the others have scales and a product with them."""
        scaled = self.format.static or self.format.dynamic
        return ("cast", "scale", "accumulation") if scaled else ("cast",)

    def bytes_per_token(self, kv_heads: int, head_dim: int) -> float:
        """As the format counts them."""
        return float(self.format.bytes_per_token(kv_heads, head_dim))

    def calibrate(self, x: Tensor) -> Tensors:
        """``scale`` float64 ``[kv_heads]`` of an fp8 format."""
        if not self.format.static:
            return {}
        largest = x.double().abs().amax((0, 2))
        if not self.format.per_head:
            largest = largest.amax().expand_as(largest)
        scale = largest / _LARGEST[self.format.name]
        return {"scale": scale.masked_fill(scale == 0, 1.0)}

    def encode(self, x: Tensor, fixed: Tensors, exact: Exact) -> Tensors:
        """``codes``, and ``scales`` of a format that stores them with each token."""
        if not exact - {"accumulation"}:
            codes, scales = encode(x, self.format, self._float32(fixed))
            return {"codes": codes} if scales is None else {"codes": codes, "scales": scales}
        wide = x.double()
        if not (self.format.static or self.format.dynamic):
            cast = wide.to(self.format.storage_dtype).double()
            return {"wide": wide if "cast" in exact else cast}
        if self.format.static:
            scales = fixed["scale"][:, None]
        else:
            groups = wide.reshape(*x.shape[:2], self.format.groups(x.shape[2]), self.format.group)
            scales = (groups.abs().amax(3) / _LARGEST[self.format.name])[..., None]
            wide = groups
        if "scale" not in exact:
            scales = scales.float().double()
        steps = scales.masked_fill(scales == 0, 1.0)
        codes = wide / steps
        if "cast" not in exact:
            # The quotient of two float32 numbers, rounded to float64 and then to float32, is the
            # float32 quotient: 53 bits are more than twice 24 and two.
            codes = self._grid(codes.float()).double()
        return {"wide": codes, "scales": steps}

    def decode(self, coded: Tensors, fixed: Tensors, dtype: torch.dtype, exact: Exact) -> Tensor:
        """The product of code and scale, in float32 unless accumulation is exact."""
        if not exact:
            scale = coded["scales"] if self.format.dynamic else self._float32(fixed)
            return decode(coded["codes"], scale, self.format, dtype)
        if "wide" in coded:
            codes, scales = coded["wide"], coded.get("scales")
            product = codes if scales is None else codes * scales
        else:
            product = self._product(coded, fixed)
        if self.format.dynamic:
            product = product.flatten(2)
        # The float64 product of a code and a float32 scale is exact, so this is the float32 one.
        return (product if "accumulation" in exact else product.float()).to(dtype)

    def _product(self, coded: Tensors, fixed: Tensors) -> Tensor:
        """The exact product of stored codes and scales, float64; in groups where there are."""
        if self.format.dynamic:
            ones = torch.ones_like(coded["scales"])
            codes = decode(coded["codes"], ones, self.format, torch.float32)
            grouped = codes.double().reshape(*ones.shape, self.format.group)
            return grouped * coded["scales"].double()[..., None]
        if self.format.static:
            scale = self._float32(fixed)
            assert scale is not None
            return coded["codes"].float().double() * scale.double()[:, None]
        return coded["codes"].double()

    def _float32(self, fixed: Tensors) -> Tensor | None:
        return fixed["scale"].float() if self.format.static else None

    def _grid(self, codes: Tensor) -> Tensor:
        """Float32 quotients on the grid of the codes."""
        largest = _LARGEST[self.format.name]
        if self.format.dynamic:
            return codes.round().clamp(-largest, largest) + 0.0  # an integer has no -0
        return codes.clamp(-largest, largest).to(self.format.storage_dtype).float()
