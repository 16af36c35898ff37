"""Codecs of other people: one with all four stages, and some that do not keep their word."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

TABLE = torch.tensor([-1.0, -0.6, -0.35, -0.15, 0.0, 0.15, 0.35, 0.6, 1.0], dtype=torch.float64)


class Fourfold:
    """A scale kept in few bits, the nearest entry of a table, and the rest on a grid of int8.

    Encode divides by the exact scale and decode multiplies by the rounded one, so each stage adds
    an error of its own: ``scale_bits`` of the scale's fraction, and a grid of ``levels``.
    """

    stages = ("cast", "scale", "codebook", "accumulation")

    def __init__(self, argument: str = "23,127") -> None:
        bits, levels = argument.split(",")
        self.scale_bits, self.levels = int(bits), int(levels)
        self.name = f"fourfold({argument})"

    def bytes_per_token(self, kv_heads: int, head_dim: int) -> float:
        return kv_heads * (2 * head_dim + 4)

    def calibrate(self, x: Tensor) -> dict[str, Tensor]:
        return {}

    def encode(self, x: Tensor, fixed: Any, exact: frozenset[str]) -> dict[str, Tensor]:
        wide = x.double()
        largest = wide.abs().amax(2, keepdim=True)
        largest = largest.masked_fill(largest == 0, 1.0)
        share = wide / largest
        codes = (share[..., None] - TABLE.to(x.device)).abs().argmin(-1)
        entry = share if "codebook" in exact else TABLE.to(x.device)[codes]
        rest = (share - entry) * self.levels / 0.2
        scale = largest
        if "scale" not in exact:
            fraction, exponent = torch.frexp(largest)
            unit = 2.0**self.scale_bits
            scale = torch.ldexp((fraction * unit).round() / unit, exponent)
        if "cast" not in exact:
            rest = rest.round().clamp(-127, 127)
        if exact:
            return {"entry": entry, "rest": rest, "scale": scale}
        return {
            "entry": codes.to(torch.uint8),
            "rest": rest.to(torch.int8),
            "scale": scale.float(),
        }

    def decode(
        self, coded: dict[str, Tensor], fixed: Any, dtype: torch.dtype, exact: frozenset[str]
    ) -> Tensor:
        entry = coded["entry"]
        entry = entry if entry.is_floating_point() else TABLE.to(entry.device)[entry.long()]
        share = entry + coded["rest"].double() * (0.2 / self.levels)
        return (share * coded["scale"].double()).to(dtype)


class Honest:
    """Keeps what it is given, in float32."""

    name = "honest"
    stages = ()

    def bytes_per_token(self, kv_heads: int, head_dim: int) -> float:
        return 4 * kv_heads * head_dim

    def calibrate(self, x: Tensor) -> dict[str, Tensor]:
        return {}

    def encode(self, x: Tensor, fixed: Any, exact: frozenset[str]) -> dict[str, Tensor]:
        return {"codes": x.float().clone()}

    def decode(
        self, coded: dict[str, Tensor], fixed: Any, dtype: torch.dtype, exact: frozenset[str]
    ) -> Tensor:
        return coded["codes"].to(dtype)


class Understates(Honest):
    """Says half of the bytes that it takes."""

    def bytes_per_token(self, kv_heads: int, head_dim: int) -> float:
        return 2 * kv_heads * head_dim


class Leaves(Honest):
    """Says the bytes of a view; the memory behind it is twice as large."""

    def encode(self, x: Tensor, fixed: Any, exact: frozenset[str]) -> dict[str, Tensor]:
        return {"codes": torch.cat([x, x]).float()[: len(x)]}


class Keeps(Honest):
    """Stores nothing in its tensors and decodes from what it kept."""

    def bytes_per_token(self, kv_heads: int, head_dim: int) -> float:
        return 1

    def encode(self, x: Tensor, fixed: Any, exact: frozenset[str]) -> dict[str, Tensor]:
        self.kept = x
        return {"codes": torch.zeros(len(x), dtype=torch.uint8, device=x.device)}

    def decode(
        self, coded: dict[str, Tensor], fixed: Any, dtype: torch.dtype, exact: frozenset[str]
    ) -> Tensor:
        return self.kept[: len(coded["codes"])].to(dtype)


class Together(Honest):
    """One scale for all tokens that are written at once."""

    stages = ("cast",)

    def encode(self, x: Tensor, fixed: Any, exact: frozenset[str]) -> dict[str, Tensor]:
        wide = x.double()
        if exact:
            return {"codes": wide}
        step = wide.abs().max() / 100
        return {"codes": ((wide / step).round() * step).float()}


class Unexplained(Honest):
    """Names a stage, and errs outside of it."""

    stages = ("cast",)

    def decode(
        self, coded: dict[str, Tensor], fixed: Any, dtype: torch.dtype, exact: frozenset[str]
    ) -> Tensor:
        return (coded["codes"] * 1.01).to(dtype)


class Raises(Honest):
    def decode(self, *args: Any) -> Tensor:
        raise RuntimeError("no such table")


class Refuses(Honest):
    def bytes_per_token(self, kv_heads: int, head_dim: int) -> float:
        raise ValueError(f"head dimension {head_dim} is not mine")


class Flat(Honest):
    def decode(
        self, coded: dict[str, Tensor], fixed: Any, dtype: torch.dtype, exact: frozenset[str]
    ) -> Tensor:
        return coded["codes"].flatten().to(dtype)


class Overflows(Honest):
    def decode(
        self, coded: dict[str, Tensor], fixed: Any, dtype: torch.dtype, exact: frozenset[str]
    ) -> Tensor:
        return (coded["codes"] * 1e38 * 1e38).to(dtype)


class Listed(Honest):
    def encode(self, x: Tensor, fixed: Any, exact: frozenset[str]) -> Any:
        return [x]


class Stageless:
    """No codec at all."""

    name = "stageless"


class Misnamed(Honest):
    stages = ("rounding",)


def broken() -> Any:
    raise RuntimeError("cannot be made")
