"""The stand-in for FlashInfer is a fixture of these tests."""

from __future__ import annotations

from flashinfer_stand_in import flashinfer

__all__ = ["flashinfer"]
