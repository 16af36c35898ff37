"""How far coded keys and values are from what was stored, by layer and by stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.labs.codec.capture import Captured
from kvparity.labs.codec.coding import Coding


@dataclass(frozen=True)
class Error:
    """The error of the keys (or of the values) of one layer, in float64.

    ``rel_rms``: root of (sum of squared errors / sum of squares). ``max_abs``: the largest error.
    ``peak``: the largest number that was coded.
    """

    rel_rms: float
    max_abs: float
    peak: float


@dataclass(frozen=True)
class LayerError:
    """Keys and values of one layer."""

    k: Error
    v: Error


def error(found: Tensor, wanted: Tensor) -> Error:
    """The error of ``found`` against ``wanted``, of one shape."""
    exact = wanted.double()
    off = found.double() - exact
    size = float(exact.square().sum())
    return Error(
        rel_rms=math.sqrt(float(off.square().sum()) / size) if size else 0.0,
        max_abs=float(off.abs().max()),
        peak=float(exact.abs().max()),
    )


def layer_errors(coding: Coding, layers: Sequence[Captured]) -> tuple[LayerError, ...]:
    """The error of every layer, coded or not in ``coding``, with its exact stages."""
    found = []
    for number, stored in enumerate(layers):
        k, v = coding.apply(number, stored.k, stored.v)
        found.append(LayerError(error(k, stored.k), error(v, stored.v)))
    return tuple(found)


def mean_square(errors: Sequence[LayerError]) -> float:
    """The mean of ``rel_rms`` squared over layers, keys and values: every layer counts the same."""
    squares = [x.rel_rms**2 for each in errors for x in (each.k, each.v)]
    return sum(squares) / len(squares)


def holds_all(wide: torch.dtype, narrow: torch.dtype) -> bool:
    """Whether a cache in ``wide`` keeps every number of ``narrow``."""
    return wide == narrow or wide == torch.float32
