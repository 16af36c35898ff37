"""torch's scaled_dot_product_attention as pairs: the dispatcher's choice, and each backend.

``prefill`` and ``decode`` leave the backend to torch, as most users do. ``math_prefill``,
``flash_decode`` and so on name one: a backend that cannot serve the call is torch's own error, and
nothing else runs instead. None of them returns an LSE.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from kvparity_kernels.relied.torch import lower_right

BACKENDS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


def _call(backend: str, q: Tensor, k: Tensor, v: Tensor, scale: float, *, causal: bool) -> Tensor:
    """``[B, T, H, D]`` tensors through one backend."""
    q, k, v = (x.transpose(1, 2).contiguous() for x in (q, k, v))
    with sdpa_kernel(BACKENDS[backend]):
        out = scaled_dot_product_attention(
            q, k, v, is_causal=causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )
    return out.transpose(1, 2)


def _without_keys(q: Tensor, v: Tensor) -> Tensor:
    """A row that sees no key: backends refuse to be asked, or do not say what they give."""
    return q.new_zeros(len(q), v.shape[-1])


def _prefill(
    backend: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    scale: float,
) -> Tensor:
    """Whole prompts only: with fewer queries than keys, ``is_causal`` aligns at the start."""
    ends, key_ends = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    if ends != key_ends:
        raise ValueError(
            f"SDPA takes whole prompts here: queries end at {ends}, keys at {key_ends}"
        )
    spans = [(start, stop) for start, stop in pairwise(ends) if start != stop]
    lengths = {stop - start for start, stop in spans}
    if len(lengths) == 1:  # one call, as a padded batch of equal lengths would be
        (n,) = lengths
        q4, k4, v4 = (x.view(-1, n, *x.shape[1:]) for x in (q, k, v))
        return _call(backend, q4, k4, v4, scale, causal=True).flatten(0, 1)
    parts = [
        _call(backend, q[a:b][None], k[a:b][None], v[a:b][None], scale, causal=True)[0]
        for a, b in spans
    ]
    return torch.cat(parts)


def _decode(
    backend: str, q: Tensor, k_cache: Tensor, v_cache: Tensor, *, kv_lens: Tensor, scale: float
) -> Tensor:
    lengths = kv_lens.tolist()
    if len(set(lengths)) == 1:
        n = lengths[0]
        q4, k4, v4 = q[:, None], k_cache[:, :n], v_cache[:, :n]
        return _call(backend, q4, k4, v4, scale, causal=False)[:, 0]
    parts = [
        _call(backend, q[b][None, None], k_cache[b : b + 1, :n], v_cache[b : b + 1, :n], scale,
              causal=False)[:, 0]
        if n
        else _without_keys(q[b], v_cache)[None]
        for b, n in enumerate(lengths)
    ]  # fmt: skip
    return torch.cat(parts)


def prefill(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    scale: float,
) -> Tensor:
    """The dispatcher's choice, a sequence at a time; chunks too."""
    parts = []
    spans = zip(pairwise(cu_seqlens_q.tolist()), pairwise(cu_seqlens_k.tolist()), strict=True)
    for (q0, q1), (k0, k1) in spans:
        if q0 == q1:
            continue
        square = q1 - q0 == k1 - k0  # else is_causal would align the mask at the start
        out = scaled_dot_product_attention(
            q[q0:q1].transpose(0, 1)[None],
            k[k0:k1].transpose(0, 1)[None],
            v[k0:k1].transpose(0, 1)[None],
            attn_mask=None if square else lower_right(q1 - q0, k1 - k0),
            is_causal=square,
            scale=scale,
            enable_gqa=True,
        )
        parts.append(out[0].transpose(0, 1))
    return torch.cat(parts)


def decode(q: Tensor, k_cache: Tensor, v_cache: Tensor, *, kv_lens: Tensor, scale: float) -> Tensor:
    """The dispatcher's choice, one query of one sequence at a time."""
    rows = [
        scaled_dot_product_attention(
            q[b][None, :, None],
            k_cache[b, :n].transpose(0, 1)[None],
            v_cache[b, :n].transpose(0, 1)[None],
            scale=scale,
            enable_gqa=True,
        )[0, :, 0]
        if n
        else _without_keys(q[b], v_cache)
        for b, n in enumerate(kv_lens.tolist())
    ]
    return torch.stack(rows)


Kernel = Callable[..., Tensor]
math_prefill: Kernel = partial(_prefill, "math")
math_decode: Kernel = partial(_decode, "math")
flash_prefill: Kernel = partial(_prefill, "flash")
flash_decode: Kernel = partial(_decode, "flash")
efficient_prefill: Kernel = partial(_prefill, "efficient")
efficient_decode: Kernel = partial(_decode, "efficient")
cudnn_prefill: Kernel = partial(_prefill, "cudnn")
cudnn_decode: Kernel = partial(_decode, "cudnn")
