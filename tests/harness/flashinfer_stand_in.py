"""A stand-in for FlashInfer: its documented paged layout, computed in float64 by the naive twin.

It takes the calls of ``kvparity.core.relied.flashinfer`` and no others; ``ci/newest`` holds those
against the library itself.
"""

from __future__ import annotations

import math
import sys
from types import ModuleType

import pytest
import torch

from kvparity.core.relied import flashinfer as relied
from kvparity.pairs import flashinfer as ours
from kvparity_kernels.attention import naive

LOG2_E = math.log2(math.e)


def read(pages, indptr, indices, last, b):
    """Keys of one request, as FlashInfer's documentation says where they lie."""
    own = pages[indices[int(indptr[b]) : int(indptr[b + 1])].long()].flatten(0, 1)
    return own[: len(own) - pages.shape[1] + int(last[b])]


class Wrapper:
    """What both wrappers share; ``seen`` collects every plan."""

    _backend = "fa2"

    def __init__(self, workspace, layout, **how):
        self._told("__init__", workspace, layout, **how)
        assert (workspace.dtype, layout, how.pop("backend")) == (torch.uint8, "NHD", "fa2")
        self.how = how

    def _told(self, method, *places, **names):
        relied.declared(self.name, method).bind(*places, **names)

    def _run(self, q, caches, q_indptr, return_lse):
        self._told("run", q, caches, return_lse=return_lse)
        assert return_lse
        outs, lses = [], []
        for b in range(len(self.indptr) - 1):
            rows = q[int(q_indptr[b]) : int(q_indptr[b + 1])]
            k, v = (read(c, self.indptr, self.indices, self.last, b) for c in caches)
            out, lse = naive.attend(
                rows, k, v, scale=self.options["sm_scale"],
                window=self.options.get("window_left", -1) + 1,
                softcap=self.options.get("logits_soft_cap", 0.0),
            )  # fmt: skip
            outs.append(out.to(q.dtype))
            lses.append((lse * LOG2_E).float())
        return torch.cat(outs), torch.cat(lses)

    def _keep(self, indptr, indices, last, q_heads, kv_heads, dim, page, options):
        self.indptr, self.indices, self.last, self.options = indptr, indices, last, options
        self.seen.append((self.how, (q_heads, kv_heads, dim, page), options))


@pytest.fixture
def flashinfer(monkeypatch):
    """The stand-in in place of the library; gives the list of all plans."""
    seen: list = []

    class Prefill(Wrapper):
        name = relied.PREFILL

        def plan(self, q_indptr, indptr, indices, last, *shape, **options):
            self._told("plan", q_indptr, indptr, indices, last, *shape, **options)
            assert options.pop("causal") is True
            self.q_indptr = q_indptr
            self._keep(indptr, indices, last, *shape, options)

        def run(self, q, caches, return_lse):
            return self._run(q, caches, self.q_indptr, return_lse)

    class Decode(Wrapper):
        name = relied.DECODE

        def plan(self, indptr, indices, last, *shape, **options):
            self._told("plan", indptr, indices, last, *shape, **options)
            assert self.how == {"use_tensor_cores": True}
            self._keep(indptr, indices, last, *shape, options)

        def run(self, q, caches, return_lse):
            return self._run(q, caches, torch.arange(len(q) + 1), return_lse)

    Prefill.seen = Decode.seen = seen  # type: ignore[attr-defined] # of the stand-in
    module = ModuleType("flashinfer")
    setattr(module, relied.PREFILL, Prefill)
    setattr(module, relied.DECODE, Decode)
    monkeypatch.setitem(sys.modules, "flashinfer", module)
    monkeypatch.setattr(ours, "library", lambda q: module)
    return seen
