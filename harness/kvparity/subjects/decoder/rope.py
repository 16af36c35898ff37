"""RoPE tables, as Hugging Face defines them: part of the model, not of its arithmetic.

Frequencies and angles are float32 (``transformers.modeling_rope_utils``), also for a float64
model; checkpoints were trained with these very tables, so the oracle uses them too.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kvparity.subjects.decoder.config import DecoderShape


def inverse_frequencies(config: DecoderShape) -> Tensor:
    """Float32 ``[head_dim / 2]`` on the CPU, with Llama 3.1's scaling where configured."""
    dims = torch.arange(0, config.head_dim, 2, dtype=torch.float32)
    inv_freq = 1.0 / (config.rope_theta ** (dims / config.head_dim))
    scaling = config.rope_scaling
    if scaling is None:
        return inv_freq
    # Short wavelengths stay, long ones are divided by the factor, those between are blended.
    original = scaling.original_max_positions
    wavelength = 2 * math.pi / inv_freq
    blend = (original / wavelength - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    blended = (1 - blend) * inv_freq / scaling.factor + blend * inv_freq
    scaled = torch.where(
        wavelength > original / scaling.low_freq_factor, inv_freq / scaling.factor, blended
    )
    return torch.where(wavelength < original / scaling.high_freq_factor, inv_freq, scaled)


def tables(config: DecoderShape, positions: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines, float32 ``[positions, head_dim / 2]`` on the CPU.

    Always of all positions at once: a vectorised cosine may round an element differently by its
    place in a call, and a step must not decide that.
    """
    angles = torch.arange(positions, dtype=torch.float32)[:, None] * inverse_frequencies(config)
    return angles.cos(), angles.sin()
