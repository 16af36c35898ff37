"""Decoders that need no file: real shapes, seeded weights (see ``seeded``)."""

from __future__ import annotations

from dataclasses import replace

from kvparity.core.errors import UnsupportedError
from kvparity.subjects.decoder.config import DecoderShape

# https://huggingface.co/Qwen/Qwen3-8B
_QWEN3 = DecoderShape(
    family="qwen3",
    vocab=151936,
    hidden=4096,
    layers=36,
    heads=32,
    kv_heads=8,
    head_dim=128,
    intermediate=12288,
    max_positions=40960,
    rms_eps=1e-6,
    rope_theta=1e6,
    qk_norm=True,
)
PRESETS: dict[str, DecoderShape] = {
    # Small enough for Triton's interpreter: bytes for tokens, every feature of qwen3 switched on.
    "tiny": DecoderShape(
        family="qwen3",
        vocab=256,
        hidden=64,
        layers=2,
        heads=8,
        kv_heads=2,
        head_dim=16,
        intermediate=128,
        max_positions=1024,
        rms_eps=1e-6,
        qk_norm=True,
        tied=True,
    ),
    # https://huggingface.co/Qwen/Qwen3-0.6B
    "qwen3-0.6b": replace(_QWEN3, hidden=1024, layers=28, heads=16, intermediate=3072, tied=True),
    "qwen3-8b": _QWEN3,
    # https://huggingface.co/meta-llama/Meta-Llama-3-8B
    "llama3-8b": DecoderShape(
        family="llama",
        vocab=128256,
        hidden=4096,
        layers=32,
        heads=32,
        kv_heads=8,
        head_dim=128,
        intermediate=14336,
        max_positions=8192,
        rms_eps=1e-5,
        rope_theta=500000.0,
    ),
}


def preset(name: str) -> DecoderShape:
    """The configuration called ``name``; ``UnsupportedError`` names those that exist."""
    if name not in PRESETS:
        raise UnsupportedError(f"no decoder preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
