"""What a kernel of a pair does to memory: of its inputs, of its results, of a far cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import naive_pair
import pytest
import torch
from engine_calls import differs, over, run, setting
from torch import Tensor

from kvparity.plan.paths import build as plan_of
from kvparity.plan.workload import fill
from kvparity.subjects.base import SubjectError, UnsupportedError
from kvparity.subjects.pair import sparse
from kvparity.subjects.pair.subject import AttentionSubject
from kvparity_contracts.paths import PathName


def test_what_a_kernel_returns_is_copied_before_the_next_call() -> None:
    """An engine's graph writes to the same buffer at every replay, and returns a view of it."""
    buffers = torch.empty(128, 4, 8), torch.empty(128, 4)

    def static(kernel: Callable[..., Any]) -> Callable[..., Any]:
        def kept(*args: Any, **more: Any) -> Any:
            views = []
            for buffer, found in zip(buffers, kernel(*args, **more), strict=True):
                buffer[: len(found)] = found
                views.append(buffer[: len(found)])
            return tuple(views)

        return kept

    kernels = {name: static(getattr(naive_pair, name)) for name in ("prefill", "decode")}
    # A prompt and decoding rows in one step are two calls; the second writes where the first did.
    found = setting(["decode", "batched", "mixed", "permuted"], lengths=[30, 3])
    assert not differs(run(over(found, **kernels)))
    alone = {
        name: lambda *a, k=kernel, **more: k(*a, **more)[0] for name, kernel in kernels.items()
    }
    assert not differs(run(over(found, **alone)))


def test_two_writes_that_make_up_for_each_other_are_seen() -> None:
    """A sum of bits, weighted by odd numbers, is the same before and after these."""

    def decode(q: Tensor, *args: Any, **more: Any) -> Any:
        found = naive_pair.decode(q, *args, **more)
        bits = q.view(torch.int32)
        bits[0, 0, 0] += 3
        bits[0, 0, 1] -= 1
        return found

    with pytest.raises(SubjectError, match="decode wrote to its input q"):
        run(over(setting(["decode"], inputs="contiguous"), decode=decode))
    with pytest.raises(SubjectError, match="decode wrote to its input q"):
        run(over(setting(["decode"]), decode=decode))


def test_a_write_beside_a_view_is_seen() -> None:
    def decode(q: Tensor, *args: Any, **more: Any) -> Any:
        found = naive_pair.decode(q, *args, **more)
        if not q.is_contiguous():
            q.as_strided((1,), (1,), q.storage_offset() + 4 * 8)[:] = 0.0
        return found

    with pytest.raises(SubjectError, match="wrote outside its inputs, which are views of one"):
        run(over(setting(["batched"]), decode=decode))


def test_a_write_between_the_slots_of_a_far_cache_is_seen() -> None:
    def decode(q: Tensor, k: Tensor, *args: Any, **more: Any) -> Any:
        found = naive_pair.decode(q, k, *args, **more)
        k.as_strided((1,), (1,), k.storage_offset() - 1)[:] = 0.0
        return found

    with pytest.raises(SubjectError, match="wrote to slots of the cache that it was not given"):
        run(over(setting(["far"]), decode=decode))


def test_a_far_cache_touches_little_memory() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before, peak, mapped = resident(), [0], [0]

    def decode(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Any:
        peak[0] = max(peak[0], resident())
        last = sum((n - 1) * step for n, step in zip(k.shape, k.stride(), strict=True))
        mapped[0] = max(mapped[0], last)
        return naive_pair.decode(q, k, v, **more)

    found = run(over(setting(["far"]), decode=decode))
    assert found["far"].outcome == "holds"
    assert mapped[0] > 2**31
    assert peak[0] - before < 100 << 20


def test_where_memory_cannot_be_sparse_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **more: Any) -> Any:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(sparse.mmap, "mmap", refuse)
    with pytest.raises(UnsupportedError, match=r"path far maps \d+ GiB .*Cannot allocate memory"):
        run(setting(["far"]))
    subject = setting(["far"]).subject
    assert isinstance(subject, AttentionSubject)
    prompts = fill(setting(["far"]).contract.workloads[0], seed=0, vocab=0)
    plan = plan_of(PathName("far"), prompts, seed=0)
    assert subject.unsupported(plan) is None
    reason = replace(subject, device=torch.device("cuda")).unsupported(plan)
    assert reason is not None
    assert "few pages" in reason
