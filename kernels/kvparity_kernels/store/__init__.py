"""What a cache holds of keys and values, and what a reader gets back."""

from __future__ import annotations

from kvparity_kernels.store.codec import decode, encode, round_trip
from kvparity_kernels.store.format import StoreFormat
from kvparity_kernels.store.poison import poisoned

__all__ = ["StoreFormat", "decode", "encode", "poisoned", "round_trip"]
