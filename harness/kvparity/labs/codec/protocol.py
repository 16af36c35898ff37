"""What a codec is: encode, decode, bytes per token, and the stages that its error comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import torch
from torch import Tensor

Stage = Literal["cast", "scale", "codebook", "accumulation"]
STAGES: tuple[Stage, ...] = ("cast", "scale", "codebook", "accumulation")
"""Where a codec rounds, in the order in which a number passes through.

``cast``: a number becomes the nearest code of a uniform or a float grid. ``scale``: a scale is
kept in fewer bits than it is computed in. ``codebook``: a number becomes the nearest entry of a
table. ``accumulation``: what a code and a scale mean is rounded to the dtype in which attention
multiplies.
"""

Exact = frozenset[Stage]
"""Stages that are switched to exact: they pass on what they got, in float64."""

NOTHING: Exact = frozenset()

Tensors = Mapping[str, Tensor]
"""Codes and scales by name. Their dtypes and shapes are the codec's own."""


class Codec(Protocol):
    """A codec of keys or values.

    A token must be coded without a look at the tokens beside it, or what a decode step stores
    depends on what was written together with it; the lab measures that and says so.
    """

    @property
    def name(self) -> str:
        """The text by which it was asked for, for reports."""
        ...

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that it has. With all of them exact, decode must give back what came in."""
        ...

    def bytes_per_token(self, kv_heads: int, head_dim: int) -> float:
        """Bytes of the keys (or of the values) of one token in one layer, all scales included.

        Raises ``ValueError`` for a shape that it cannot code.
        """
        ...

    def calibrate(self, x: Tensor) -> Tensors:
        """What is fixed before any token is coded, from ``x [n, kv_heads, head_dim]`` of one layer.

        It is kept once per layer, not per token. Empty where nothing is fixed.
        """
        ...

    def encode(self, x: Tensor, fixed: Tensors, exact: Exact) -> Tensors:
        """The codes of ``x [n, kv_heads, head_dim]`` in a float dtype.

        With ``exact`` empty the tensors are what a cache would keep, and their bytes are counted.
        """
        ...

    def decode(self, coded: Tensors, fixed: Tensors, dtype: torch.dtype, exact: Exact) -> Tensor:
        """The numbers ``[n, kv_heads, head_dim]`` in ``dtype``, from the tensors alone.

        ``dtype`` is float64 where accumulation is exact.
        """
        ...
