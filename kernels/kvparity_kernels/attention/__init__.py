"""Attention whose decode reduces exactly as its prefill does."""

from __future__ import annotations

from kvparity_kernels.attention.api import attend_decode, attend_prefill, decode, prefill
from kvparity_kernels.attention.caches import append

__all__ = ["append", "attend_decode", "attend_prefill", "decode", "prefill"]
