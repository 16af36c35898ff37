"""FlashInfer's paged wrappers as pairs: batch prefill and batch decode of its fa2 backend.

Three ways to cut the keys, as its users choose between them: ``prefill``/``decode`` leave it to the
scheduler (which looks at the batch and the device), ``fixed_prefill``/``fixed_decode`` ask for
``fixed_split_size``, ``whole_prefill``/``whole_decode`` for ``disable_split_kv``. Only the backend
``fa2`` is given these two, and decode only with tensor cores, so all pairs ask for both.
FlashInfer counts a split in pages; ``SPLIT`` counts keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise
from types import ModuleType
from typing import Literal, Protocol, overload

import torch
from torch import Tensor

from kvparity.core.relied.flashinfer import gone

PAGE = 16
SPLIT = 256
WORKSPACE_BYTES = 128 << 20  # what FlashInfer's own documentation allots
Cut = dict[str, int | bool]
FIXED: Cut = {"fixed_split_size": SPLIT // PAGE}
WHOLE: Cut = {"disable_split_kv": True}

Rows = tuple[Tensor, Tensor]


class PlannedAttention(Protocol):
    """A wrapper of FlashInfer's with a plan."""

    @overload
    def run(self, q: Tensor, paged_kv_cache: tuple[Tensor, ...], /) -> Tensor: ...
    @overload
    def run(
        self, q: Tensor, paged_kv_cache: tuple[Tensor, ...], /, *, return_lse: Literal[True]
    ) -> Rows: ...


def library(q: Tensor) -> ModuleType:
    """FlashInfer, which compiles its kernels at the first call.

    Raises ``RuntimeError`` without it, or if it no longer takes what it is handed.
    """
    if q.device.type != "cuda":
        raise RuntimeError(f"FlashInfer computes on CUDA only, and the tensors are on {q.device}")
    try:
        import flashinfer
    except ImportError as error:
        raise RuntimeError(
            f"{error}; FlashInfer comes with pip install 'kvparity[flashinfer]'"
        ) from error
    _require(flashinfer)
    found: ModuleType = flashinfer
    return found


@cache
def _require(library: ModuleType) -> None:
    if missing := gone(library):
        version = getattr(library, "__version__", "of no version")
        raise RuntimeError(f"FlashInfer {version} is not as expected: {'; '.join(missing)}")


def _pages(sequences: list[Tensor]) -> Tensor:
    """Keys or values of all sequences in pages ``[pages, PAGE, heads, dim]``, ends zero."""
    parts = []
    for x in sequences:
        short = -len(x) % PAGE
        # Not NaN: past the last key FlashInfer multiplies by zero what it has loaded.
        padded = torch.cat([x, x.new_zeros(short, *x.shape[1:])]) if short else x
        parts.append(padded.reshape(len(padded) // PAGE, PAGE, *x.shape[1:]))
    return torch.cat(parts)


def _table(lengths: list[int], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """(indptr ``[B+1]``, indices ``[pages]``, last page's keys ``[B]``), int32."""
    ends = [0]
    for n in lengths:
        ends.append(ends[-1] - (-n // PAGE))
    last = [(n - 1) % PAGE + 1 for n in lengths]

    def on_device(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int32, device=device)

    return (
        on_device(ends),
        torch.arange(ends[-1], dtype=torch.int32, device=device),
        on_device(last),
    )


def _natural(out: Tensor, lse: Tensor) -> Rows:
    # Its LSE is to base 2. One multiplication on both sides: equal bits stay equal.
    return out, lse * math.log(2)


def _prefill(
    cut: Cut,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    scale: float,
) -> Rows:
    library(q)
    spans = list(pairwise(cu_seqlens_k.tolist()))
    caches = tuple(_pages([x[a:b] for a, b in spans]) for x in (k, v))
    lengths = [b - a for a, b in spans]
    wrapper = planned(q, lengths, k.shape[1], k.dtype, scale, cut, ends=cu_seqlens_q.int())
    return _natural(*wrapper.run(q, caches, return_lse=True))


def planned(
    q: Tensor,
    lengths: list[int],
    kv_heads: int,
    cache: torch.dtype,
    scale: float,
    cut: Cut,
    *,
    ends: Tensor | None = None,
    workspace: Tensor | None = None,
    backend: str = "fa2",
) -> PlannedAttention:
    """One of FlashInfer's wrappers, planned for ``lengths`` keys in pages.

    Decode for ``q[B, Hq, D]``, or with ``ends``, int32 ``[B+1]`` offsets of the rows, causal
    prefill for ``q[sum T, Hq, D]``. ``workspace``: one that is shared with wrappers which never run
    at once; what wrappers keep of a plan lies elsewhere, in one of their own.
    """
    if workspace is None:
        workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=q.device)
    made, rows, more = library(q), [], dict(cut)
    if ends is None:
        wrapper = made.BatchDecodeWithPagedKVCacheWrapper(
            workspace, "NHD", use_tensor_cores=True, backend=backend
        )
    else:
        wrapper = made.BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD", backend=backend)
        rows, more = [ends], {"causal": True, **cut}
    wrapper.plan(
        *rows,
        *_table(lengths, q.device),
        q.shape[1],
        kv_heads,
        q.shape[2],
        PAGE,
        sm_scale=scale,
        q_data_type=q.dtype,
        kv_data_type=cache,
        **more,
    )
    found: PlannedAttention = wrapper
    return found


def _decode(
    cut: Cut,
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    *,
    kv_lens: Tensor,
    scale: float,
) -> Rows:
    lengths = kv_lens.tolist()
    wrapper = planned(q, lengths, k_cache.shape[2], k_cache.dtype, scale, cut)
    caches = tuple(_pages([x[b, :n] for b, n in enumerate(lengths)]) for x in (k_cache, v_cache))
    return _natural(*wrapper.run(q, caches, return_lse=True))


Kernel = Callable[..., Rows]
prefill: Kernel = partial(_prefill, {})
decode: Kernel = partial(_decode, {})
fixed_prefill: Kernel = partial(_prefill, FIXED)
fixed_decode: Kernel = partial(_decode, FIXED)
whole_prefill: Kernel = partial(_prefill, WHOLE)
whole_decode: Kernel = partial(_decode, WHOLE)
