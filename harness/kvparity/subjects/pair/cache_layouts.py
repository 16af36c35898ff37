"""Caches as views of other layouts, as engines pass them: what the harness holds, laid out anew.

head-major: all slots of a head lie side by side within a sequence or page (``[B, Hkv, T, D]``, as
FlashInfer's HND and TensorRT-LLM have it); interleaved: K and V of a slot (``[B, T, 2, Hkv, D]``).
Kernels that take the strides of a block from its shape were shipped (ROCm/aiter#3498).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kvparity.subjects.attention_calls import StoredKV
from kvparity.subjects.pair.inputs import BAND


def laid_out(given: StoredKV, layout: str) -> tuple[StoredKV, tuple[Tensor, ...]]:
    """k and v as views of fresh memory, and all of it; what they are where ``layout`` is another.

    k ``[B, T, Hkv, D]`` or packed ``[T, Hkv, D]``. Everything beside them reads as NaN.
    """
    if layout == "head-major":
        k, of_k = _head_major(given.k)
        v, of_v = _head_major(given.v)
        return replace(given, k=k, v=v), (of_k, of_v)
    if layout == "interleaved":
        (k, v), memory = _interleaved(given.k, given.v)
        return replace(given, k=k, v=v), (memory,)
    return given, ()


def put_back(given: StoredKV, memory: tuple[Tensor, ...], to: StoredKV) -> bool:
    """Copy what somebody wrote to the views into the cache; whether nothing beside them was."""
    for laid, held in ((given.k, to.k), (given.v, to.v)):
        held.copy_(laid)
    for laid in (given.k, given.v):
        laid.view(torch.int8).fill_(-1)
    return all(bool((whole.view(torch.int8) == -1).all()) for whole in memory)


def _head_major(x: Tensor) -> tuple[Tensor, Tensor]:
    *blocks, slots, heads, width = x.shape
    band = BAND * heads * width
    memory = _poison(x.numel() + 2 * band, x)
    laid = memory[band : band + x.numel()].view(*blocks, heads, slots, width).transpose(-3, -2)
    laid.copy_(x)
    return laid, memory


def _interleaved(k: Tensor, v: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    widths = [x.shape[-2] * x.shape[-1] for x in (k, v)]
    rows = k.shape[:-2].numel()
    memory = _poison((rows + 2 * BAND) * sum(widths), k)
    whole = memory.view(-1, sum(widths))[BAND : BAND + rows]
    views = torch.split(whole, widths, 1)
    found = []
    for x, view in zip((k, v), views, strict=True):
        laid = view.view(x.shape)
        laid.copy_(x)
        found.append(laid)
    return (found[0], found[1]), memory


def _poison(size: int, like: Tensor) -> Tensor:
    """Bytes of ones: NaN in every float format."""
    whole = torch.full((size * like.element_size(),), 255, dtype=torch.uint8, device=like.device)
    return whole.view(like.dtype)
