"""FlashInfer's paged wrappers over the caches of the decoder: its fa2 backend.

A cache in pages is handed over as it is. A contiguous one is a cache in pages of one slot, which
FlashInfer takes too; a fixed split is as many keys on both. Past the last key its kernel loads
nothing and masks the scores (``attention/prefill.cuh`` of 0.7.2: ``kv_idx < kv_len``), so what
unused slots hold should not matter. On a device: not measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.pairs import flashinfer as pairs
from kvparity.subjects.decoder.backends import limits, run_counts
from kvparity.subjects.decoder.call_log import note
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.order import ReductionOrder

CUTS: dict[str, pairs.Cut] = {
    "flashinfer": {},
    "flashinfer-fixed": pairs.FIXED,
    "flashinfer-whole": pairs.WHOLE,
}
BACKEND = "fa2"


class FlashInfer:
    """Prefill and decode with the signatures of ``kvparity_kernels.attention``.

    ``name``: how keys are cut, one of ``CUTS``. A plan serves all layers of a step that attend
    alike; it is told from others by the identity of its lengths and tables, which must not be
    written to. ``order`` is taken and not looked at. Raises ``UnsupportedError`` for what it cannot
    do, ``SubjectError`` without CUDA, without FlashInfer, or where that refuses, in its own words.
    """

    def __init__(self, name: str) -> None:
        self.name, self.cut = name, CUTS[name]
        self._workspace: Tensor | None = None
        self._planned: dict[tuple[Any, ...], tuple[tuple[Tensor | None, ...], Any]] = {}

    def prefill(
        self,
        q: Tensor,
        kv: KeysValues,
        *,
        q_starts: Tensor,
        q_lens: Tensor,
        max_q: int,
        scale: float,
        order: ReductionOrder | None = None,
        window: int = 0,
        softcap: float = 0.0,
        sinks: Tensor | None = None,
        first_key: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Causal attention of many rows per sequence; see ``attend_prefill``."""
        limits.require_paged(self.name, q, kv, sinks=sinks, first_key=first_key)
        told = {"q_starts": q_starts, "q_lens": q_lens, "max_q": max_q, "scale": scale}
        note(q, kv, told | {"window": window, "softcap": softcap})
        options = self._options(q, kv, scale, window, softcap)

        def make(library: Any) -> Any:
            return library.BatchPrefillWithPagedKVCacheWrapper(
                self._space(q), "NHD", backend=BACKEND
            )

        def plan(wrapper: Any) -> None:
            ends = torch.tensor([0, *q_lens.tolist()]).cumsum(0).to(q.device, torch.int32)
            wrapper.plan(ends, *table(kv), *_sizes(q, kv), causal=True, **options)

        tensors = (kv.kv_lens, kv.starts, kv.block_table, q_starts, q_lens)
        rows = _rows(q_starts, q_lens)
        found, found_lse = self._run("prefill", q[rows], kv, tensors, options, make, plan)
        out = torch.full_like(q, float("nan"))  # rows of no sequence stay so
        lse = found_lse.new_full(q.shape[:2], float("nan"))
        out[rows], lse[rows] = found, found_lse
        return out, lse

    def decode(
        self,
        q: Tensor,
        kv: KeysValues,
        *,
        max_kv: int,
        scale: float,
        order: ReductionOrder | None = None,
        window: int = 0,
        softcap: float = 0.0,
        sinks: Tensor | None = None,
        first_key: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attention of one row per sequence, which sees all its keys; see ``attend_decode``."""
        limits.require_paged(self.name, q, kv, sinks=sinks, first_key=first_key)
        told = {"max_kv": max_kv, "scale": scale}
        note(q, kv, told | {"window": window, "softcap": softcap})
        options = self._options(q, kv, scale, window, softcap)

        def make(library: Any) -> Any:
            return library.BatchDecodeWithPagedKVCacheWrapper(
                self._space(q), "NHD", use_tensor_cores=True, backend=BACKEND
            )

        def plan(wrapper: Any) -> None:
            wrapper.plan(*table(kv), *_sizes(q, kv), **options)

        tensors = (kv.kv_lens, kv.starts, kv.block_table)
        return self._run("decode", q, kv, tensors, options, make, plan)

    def _options(
        self, q: Tensor, kv: KeysValues, scale: float, window: int, softcap: float
    ) -> dict[str, Any]:
        """What a plan is told beside lengths and sizes."""
        options: dict[str, Any] = {
            "sm_scale": scale,
            "q_data_type": q.dtype,
            "kv_data_type": kv.k.dtype,
        }
        if window:
            options["window_left"] = window - 1  # its count leaves the row's own key out
        if softcap:
            options["logits_soft_cap"] = softcap
        if self.cut == pairs.FIXED:
            page = kv.page or 1
            if pairs.SPLIT % page:
                raise UnsupportedError(
                    f"attention {self.name} cuts every {pairs.SPLIT} keys, which are not whole "
                    f"pages of {page}; use pages of a power of two up to {pairs.SPLIT}"
                )
            return options | {"fixed_split_size": pairs.SPLIT // page}
        return options | self.cut

    def _run(
        self,
        kind: str,
        q: Tensor,
        kv: KeysValues,
        tensors: tuple[Tensor | None, ...],
        options: dict[str, Any],
        make: Callable[[Any], Any],
        plan: Callable[[Any], None],
    ) -> tuple[Tensor, Tensor]:
        key = (kind, *_sizes(q, kv), *options.items())
        with self._own_words(q, kv):
            library = pairs.library(q)
            before, wrapper = self._planned.get(key, ((), None))
            if wrapper is None:
                wrapper = make(library)
            if len(before) != len(tensors) or any(
                old is not new for old, new in zip(before, tensors, strict=True)
            ):
                plan(wrapper)
                self._planned[key] = (tensors, wrapper)
            out, lse = wrapper.run(q, pages(kv), return_lse=True)
        ran = getattr(wrapper, "_backend", "an unknown backend")
        run_counts.note(
            run_counts.BACKEND + (self.name if ran == BACKEND else f"flashinfer on {ran}")
        )
        run_counts.note(f"flashinfer.{kind}")
        return out, lse * math.log(2)  # its LSE is to base 2

    def _space(self, q: Tensor) -> Tensor:
        """One workspace for all plans: they run one after the other."""
        if self._workspace is None or self._workspace.device != q.device:
            size = pairs.WORKSPACE_BYTES
            self._workspace = torch.zeros(size, dtype=torch.uint8, device=q.device)
        return self._workspace

    @contextmanager
    def _own_words(self, q: Tensor, kv: KeysValues) -> Iterator[None]:
        try:
            yield
        except torch.cuda.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError, NotImplementedError, AssertionError) as error:
            shape = f"q {list(q.shape)}, cache {list(kv.k.shape)}, {q.dtype} on {q.device}"
            raise SubjectError(f"{self.name} ({shape}): {error}") from error


def table(kv: KeysValues) -> tuple[Tensor, Tensor, Tensor]:
    """(indptr ``[B+1]``, page indices, keys of each last page ``[B]``), int32 on the device."""
    page, device = kv.page or 1, kv.k.device
    counts = (kv.kv_lens.long() + page - 1) // page
    if kv.block_table is not None:
        listed = kv.block_table
    else:
        assert kv.starts is not None  # a batch has starts or pages
        listed = kv.starts[:, None] + torch.arange(int(counts.max()), device=device)
    used = torch.arange(listed.shape[1], device=device) < counts[:, None]
    ends = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    last = (kv.kv_lens - 1) % page + 1
    return ends.int(), listed[used].int(), last.int()


def pages(kv: KeysValues) -> tuple[Tensor, Tensor]:
    """The cache ``[pages, page, kv_heads, head_dim]``, not copied."""
    page = kv.page or 1
    k, v = (x.view(-1, page, *x.shape[1:]) for x in (kv.k, kv.v))
    return k, v


def _sizes(q: Tensor, kv: KeysValues) -> tuple[int, int, int, int]:
    return q.shape[1], kv.k.shape[1], q.shape[2], kv.page or 1


def _rows(q_starts: Tensor, q_lens: Tensor) -> Tensor:
    """The rows of all sequences, one after the other, int64."""
    lens = q_lens.long()
    ends = lens.cumsum(0)
    own = torch.arange(int(ends[-1]), device=lens.device)
    return own + (q_starts.long() - (ends - lens)).repeat_interleave(lens)
