"""FlashInfer's paged wrappers over the caches of the decoder: its fa2 backend.

A cache in pages is handed over as it is. A contiguous one is a cache in pages of one slot, which
FlashInfer takes too; a fixed split is as many keys on both. Past the last key its kernel loads
nothing and masks the scores (``attention/prefill.cuh`` of 0.7.2: ``kv_idx < kv_len``), so what
unused slots hold should not matter. On a device: not measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.pairs import flashinfer as pairs
from kvparity.subjects.attention_calls import DecodeCall, Outputs, PrefillCall
from kvparity.subjects.decoder.backends import limits
from kvparity.subjects.events import BACKEND as PREFIX
from kvparity.subjects.events import Ran
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.stream import emit

CUTS: dict[str, pairs.Cut] = {
    "flashinfer": {},
    "flashinfer-fixed": pairs.FIXED,
    "flashinfer-whole": pairs.WHOLE,
}
BACKEND = "fa2"


class PlannedWrapper(Protocol):
    """One of FlashInfer's wrappers, as far as it is used."""

    def plan(self, *sizes: Tensor | int, **options: object) -> None:
        """Take the lengths, tables and sizes of a batch, in FlashInfer's order."""
        ...

    def run(
        self, q: Tensor, pages: tuple[Tensor, Tensor], *, return_lse: bool
    ) -> tuple[Tensor, Tensor]:
        """Out and LSE, to base 2."""
        ...


class FlashInfer:
    """Prefill and decode by FlashInfer's wrappers.

    ``name``: how keys are cut, one of ``CUTS``. A plan serves all layers of a step that attend
    alike; it is distinguished by the identity of its lengths and tables, which must not be
    written to. It does not look at ``order``. Raises ``UnsupportedError`` for what it cannot
    do, ``SubjectError`` without CUDA, without FlashInfer, or where that refuses, in its own words.
    """

    def __init__(self, name: str) -> None:
        self.name, self.cut = name, CUTS[name]
        self._workspace: Tensor | None = None
        self._planned: dict[
            tuple[object, ...], tuple[tuple[Tensor | None, ...], PlannedWrapper]
        ] = {}

    def prefill(self, call: PrefillCall) -> Outputs:
        """Causal attention of many rows per sequence."""
        rows = _rows(call.q_starts, call.q_lens)
        found, found_lse = self._run("prefill", call, call.q[rows], (call.q_starts, call.q_lens))
        out = torch.full_like(call.q, float("nan"))  # rows of no sequence stay so
        lse = found_lse.new_full(call.q.shape[:2], float("nan"))
        out[rows], lse[rows] = found, found_lse
        return out, lse

    def decode(self, call: DecodeCall) -> Outputs:
        """Attention of one row per sequence, which sees all its keys."""
        return self._run("decode", call, call.q, ())

    def _make(self, call: PrefillCall | DecodeCall) -> PlannedWrapper:
        """A wrapper without a plan, of the kind that the call needs."""
        library, space = pairs.library(call.q), self._space(call.q)
        found: PlannedWrapper
        if isinstance(call, PrefillCall):
            found = library.BatchPrefillWithPagedKVCacheWrapper(space, "NHD", backend=BACKEND)
        else:
            found = library.BatchDecodeWithPagedKVCacheWrapper(
                space, "NHD", use_tensor_cores=True, backend=BACKEND
            )
        return found

    def _plan(
        self, wrapper: PlannedWrapper, call: PrefillCall | DecodeCall, options: dict[str, object]
    ) -> None:
        placed = (*table(call.kv), *_sizes(call))
        if isinstance(call, PrefillCall):
            ends = torch.tensor([0, *call.q_lens.tolist()]).cumsum(0).to(call.q.device, torch.int32)
            wrapper.plan(ends, *placed, causal=True, **options)
        else:
            wrapper.plan(*placed, **options)

    def _options(self, call: PrefillCall | DecodeCall) -> dict[str, object]:
        """What a plan is given beside lengths and sizes."""
        options: dict[str, object] = {
            "sm_scale": call.scale,
            "q_data_type": call.q.dtype,
            "kv_data_type": call.kv.k.dtype,
        }
        if call.window:
            options["window_left"] = call.window - 1  # its count leaves the row's own key out
        if call.softcap:
            options["logits_soft_cap"] = call.softcap
        if self.cut == pairs.FIXED:
            page = call.kv.page or 1
            if pairs.SPLIT % page:
                raise UnsupportedError(
                    f"attention {self.name} cuts every {pairs.SPLIT} keys, which are not whole "
                    f"pages of {page}; use pages of a power of two up to {pairs.SPLIT}"
                )
            return options | {"fixed_split_size": pairs.SPLIT // page}
        return {**options, **self.cut}

    def _run(
        self, phase: str, call: PrefillCall | DecodeCall, q: Tensor, rows: tuple[Tensor, ...]
    ) -> Outputs:
        """The rows ``q`` of a call. ``rows``: the tensors that say which these are."""
        limits.require_paged(self.name, call)
        emit(call)
        options = self._options(call)
        tensors = (call.kv.kv_lens, call.kv.starts, call.kv.block_table, *rows)
        key = (phase, *_sizes(call), *options.items())
        with self._own_words(q, call.kv):
            before, wrapper = self._planned.get(key) or ((), self._make(call))
            if len(before) != len(tensors) or any(
                old is not new for old, new in zip(before, tensors, strict=True)
            ):
                self._plan(wrapper, call, options)
                self._planned[key] = (tensors, wrapper)
            out, lse = wrapper.run(q, pages(call.kv), return_lse=True)
        ran = getattr(wrapper, "_backend", "an unknown backend")
        emit(Ran(PREFIX + (self.name if ran == BACKEND else f"flashinfer on {ran}")))
        emit(Ran(f"flashinfer.{phase}"))
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


def _sizes(call: PrefillCall | DecodeCall) -> tuple[int, int, int, int]:
    return call.q.shape[1], call.kv.k.shape[1], call.q.shape[2], call.kv.page or 1


def _rows(q_starts: Tensor, q_lens: Tensor) -> Tensor:
    """The rows of all sequences, one after the other, int64."""
    lens = q_lens.long()
    ends = lens.cumsum(0)
    own = torch.arange(int(ends[-1]), device=lens.device)
    return own + (q_starts.long() - (ends - lens)).repeat_interleave(lens)
