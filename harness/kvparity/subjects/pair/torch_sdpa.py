"""torch's scaled_dot_product_attention as a pair of kernels."""

from __future__ import annotations

from kvparity.pairs import sdpa
from kvparity.subjects.pair.model import Pair


def pair(backend: str) -> Pair:
    """One backend as a pair."""
    prefill, decode = f"{backend}_prefill", f"{backend}_decode"
    name = f"{sdpa.__name__}:"
    return Pair.of(getattr(sdpa, prefill), getattr(sdpa, decode), name + prefill, name + decode)
