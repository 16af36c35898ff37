"""A LoRA adapter that was merged: what rounding to the checkpoint's grid took of it.

``W + scale * B A`` in float64 is what the adapter means; a merged checkpoint stores it in 16 bits,
whose steps may be larger than the update (NeMo-RL#3696). Format: PEFT's ``adapter_config.json`` and
``adapter_model.safetensors``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kvparity.core.errors import UnsupportedError
from kvparity.core.jsonfile import read_object
from kvparity.gaps.weights import Read, stored

_PREFIX, _A, _B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class Merged:
    """One adapted tensor. ``as_rounded``: share of elements that are the exact sum, rounded once.

    ``unmoved``: share whose update is not 0 and that are still the base's. ``lost``: norm of what
    rounding took, as a share of the update's norm; 0 where nothing is lost.
    """

    name: str
    as_rounded: float
    unmoved: float
    lost: float


def merged(base: Path, adapter: Path, result: Path) -> tuple[Merged, ...]:
    """Every tensor that the adapter changes, in ``base`` and in the merged ``result``.

    Raises:
        UnsupportedError: no LoRA adapter of PEFT, or one of other tensors.
    """
    rank, scale = _rank_and_scale(adapter)
    parts, before, after = stored(adapter), stored(base), stored(result)
    return tuple(_all(parts, rank, scale, before, after, adapter))


def _all(
    parts: Read, rank: int, scale: float, before: Read, after: Read, adapter: Path
) -> Iterator[Merged]:
    names = sorted(name.removesuffix(_A) for name in parts if name.endswith(_A))
    if not names or len(parts) != 2 * len(names):
        raise UnsupportedError(
            f"{adapter} holds other tensors than lora_A and lora_B; expected a plain LoRA adapter"
        )
    for name in names:
        own = f"{name.removeprefix(_PREFIX)}.weight"
        if own not in before or own not in after or name + _B not in parts:
            raise UnsupportedError(f"{adapter} adapts {own}, which both checkpoints must hold")
        a, b = parts[name + _A].tensor(), parts[name + _B].tensor()
        if a.dim() != 2 or b.dim() != 2 or not a.shape[0] == b.shape[1] == rank:
            raise UnsupportedError(
                f"{adapter}: lora_A {list(a.shape)} and lora_B {list(b.shape)} of {own} are no "
                f"matrices of rank {rank}, which adapter_config.json says"
            )
        yield _one(own, before[own].tensor(), scale * b.double() @ a.double(), after[own].tensor())


def _one(name: str, before: Tensor, update: Tensor, after: Tensor) -> Merged:
    if not before.shape == update.shape == after.shape:
        raise UnsupportedError(
            f"{name} is {list(before.shape)}, its update {list(update.shape)}, merged "
            f"{list(after.shape)}; expected one shape"
        )
    exact = before.double() + update
    rounded = rounded_once(exact, after.dtype)
    moves = update != 0
    unmoved = (after.double() == before.double()) & moves
    size = float(update.norm())
    return Merged(
        name,
        as_rounded=float((after == rounded).double().mean()),
        unmoved=float(unmoved.double().mean()),
        lost=float((after.double() - exact).norm()) / size if size else 0.0,
    )


def rounded_once(exact: Tensor, dtype: torch.dtype) -> Tensor:
    """Float64 to the nearest of ``dtype``, ties to even.

    ``to`` rounds to float32 on its way to 16 bits, which can make a tie of what is none. Rounded to
    the odd neighbour, float32 keeps on which side of a tie a number lies (Boldo and Melquiond,
    *Emulation of FMA and correctly rounded sums*, 2008).
    """
    if dtype in (torch.float64, torch.float32):
        return exact.to(dtype)
    near = exact.float()
    bits = near.view(torch.int32)
    inside = bits - (near.double().abs() > exact.abs()).int()  # the neighbour nearer to 0
    inexact = (near.double() != exact) & ~exact.isnan()
    return torch.where(inexact, inside | 1, bits).view(torch.float32).to(dtype)


def _rank_and_scale(adapter: Path) -> tuple[int, float]:
    settings = read_object(adapter / "adapter_config.json")
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    if settings.get("peft_type") != "LORA" or not isinstance(rank, int) or rank < 1:
        raise UnsupportedError(f"{adapter}/adapter_config.json is of no LoRA adapter")
    if not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise UnsupportedError(f"{adapter}/adapter_config.json has no lora_alpha")
    for name in ("use_dora", "fan_in_fan_out", "alpha_pattern", "rank_pattern"):
        if settings.get(name):
            raise UnsupportedError(f"{adapter}/adapter_config.json: {name} is not supported")
    return rank, alpha / (rank**0.5 if settings.get("use_rslora") else rank)
