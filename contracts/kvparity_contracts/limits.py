"""Limits of an accuracy check: how far a path may be from float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, get_args

from pydantic import Discriminator, Field, Tag

from kvparity_contracts.base import DType, Fault, Model

Above = Annotated[float, Field(gt=0)]
DTYPES: tuple[DType, ...] = get_args(DType)
TOKEN_LIMITS = ("max_abs_dlogp", "approx_kl0", "clipfrac0")


class Limits(Model):
    """Upper limits. Language models: max_abs_dlogp, approx_kl0, clipfrac0. Attention: max_abs."""

    TAG: ClassVar[str] = "one"

    max_abs_dlogp: Above | None = None
    """Largest absolute difference of a token's logprob from float64."""
    approx_kl0: Above | None = None
    """Mean of exp(d) - 1 - d over all tokens, d the logprob of float64 less that of the path."""
    clipfrac0: Annotated[float, Field(ge=0)] | None = None
    """Share of tokens with exp(d) outside 0.8 .. 1.2."""
    max_abs: Above | None = None
    """Attention: largest absolute difference of an element from float64."""

    def own_faults(self) -> Iterator[Fault]:
        """No limit at all."""
        if not self.given():
            yield Fault((), "found no limit", f"one of {', '.join(Limits.model_fields)}")

    def given(self) -> dict[str, float]:
        """The limits that are set, by name."""
        return {name: value for name, value in self if value is not None}


class LimitsByDType(Model):
    """Other limits for each execution format."""

    TAG: ClassVar[str] = "by-dtype"

    float32: Limits | None = None
    """Limits where execution is float32."""
    float16: Limits | None = None
    """Limits where execution is float16."""
    bfloat16: Limits | None = None
    """Limits where execution is bfloat16."""

    def items(self) -> Iterator[tuple[DType, Limits]]:
        """The formats that have limits, with these."""
        for dtype in DTYPES:
            limits: Limits | None = getattr(self, dtype)
            if limits is not None:
                yield dtype, limits


def _which(value: object) -> str:
    if isinstance(value, LimitsByDType):
        return LimitsByDType.TAG
    by_dtype = isinstance(value, dict) and any(key in DTYPES for key in value)
    return LimitsByDType.TAG if by_dtype else Limits.TAG


AnyLimits = Annotated[
    Annotated[Limits, Tag("one")] | Annotated[LimitsByDType, Tag("by-dtype")],
    Discriminator(_which),
]
