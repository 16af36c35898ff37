"""Caches as views of other layouts: what a kernel is given, and what strides it may not assume."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import naive_pair
import paged_pair
import pytest
import torch
from engine_calls import caught, differs, over, run, setting
from torch import Tensor

from kvparity.subjects.attention_calls import StoredKV
from kvparity.subjects.base import SubjectError
from kvparity.subjects.pair.append import Appending
from kvparity.subjects.pair.cache_layouts import laid_out, put_back

PATHS = ["decode", "batched", "chunked(24)", "prefix(4)", "verify(2)"]
CONTROL = "cache-strides-ignored"
PAGES = {"module": "paged_pair.py", "decode": "paged_pair.py:decode", "page": 4}
LAYOUTS: list[dict[str, Any]] = [
    {"layout": "head-major"},
    {"layout": "interleaved"},
    {"layout": "head-slot"},
    {"layout": "head-major", "kv_cache": "int8(8)", "module": "wide_pair.py"},
    {
        "layout": "interleaved", "heads": {"query": 4, "kv": 1, "dim": 8, "v_dim": 4},
        "module": "semantic_pairs.py", "empty": "never",
    },
    PAGES | {"layout": "head-major"},
    PAGES | {"layout": "interleaved"},
]  # fmt: skip


@pytest.mark.parametrize("more", LAYOUTS, ids=str)
def test_a_right_pair_holds_and_the_control_is_caught(more: dict[str, Any]) -> None:
    found = setting(PATHS, [CONTROL], **more)
    assert not differs(run(found))
    assert caught(found) == {CONTROL: True}


def dense(x: Tensor) -> Tensor:
    """The cache as a kernel reads it that multiplies what its shape says."""
    return x.as_strided(x.shape, torch.empty(x.shape).stride(), x.storage_offset())


@pytest.mark.parametrize(
    ("layout", "right"),
    [("slot-head", True), ("head-slot", False), ("head-major", False), ("interleaved", False)],
)
def test_a_decode_that_takes_a_cache_for_a_dense_one_differs(layout: str, right: bool) -> None:
    def decode(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Any:
        return naive_pair.decode(q, dense(k), dense(v), **more)

    found = run(over(setting(["decode", "chunked(24)"], layout=layout), decode=decode))
    assert differs(found) == (set() if right else {"decode"})


def test_a_block_of_keys_is_as_its_layout_says() -> None:
    k, v = torch.randn(3, 5, 2, 8), torch.randn(3, 5, 2, 4)
    major, memory = laid_out(StoredKV(k, v), "head-major")
    assert torch.equal(major.k, k)
    assert torch.equal(major.v, v)
    assert major.k.transpose(1, 2).is_contiguous()
    assert major.v.transpose(1, 2).is_contiguous()
    assert sum(int(x.isnan().sum()) for x in memory) == sum(map(torch.Tensor.numel, memory)) - (
        k.numel() + v.numel()
    )
    mixed, (one,) = laid_out(StoredKV(k, v), "interleaved")
    assert torch.equal(mixed.k, k)
    assert torch.equal(mixed.v, v)
    assert mixed.k.stride() == (5 * 2 * 12, 2 * 12, 8, 1)
    assert mixed.v.stride() == (5 * 2 * 12, 2 * 12, 4, 1)
    assert mixed.v.storage_offset() - mixed.k.storage_offset() == 2 * 8
    assert int(one.isnan().sum()) == one.numel() - k.numel() - v.numel()


@pytest.mark.parametrize("layout", ["head-major", "interleaved"])
def test_what_lies_beside_a_cache_is_looked_at(layout: str) -> None:
    held = StoredKV(torch.zeros(4, 2, 8), torch.zeros(4, 2, 8))
    for beside in (False, True):
        given, memory = laid_out(held, layout)
        given.k[3] = 7
        memory[-1][-1] = 0 if beside else memory[-1][-1]
        assert put_back(given, memory, held) is not beside
        assert held.k[:, 0, 0].tolist() == [0, 0, 0, 7]

    def decode(q: Tensor, k: Tensor, *args: Tensor, **more: Any) -> Any:
        k.as_strided((1,), (1,), 0).zero_()  # before the first slot
        return naive_pair.decode(q, k, *args, **more)

    with pytest.raises(SubjectError, match="wrote outside its inputs"):
        run(over(setting(["decode"], layout=layout), decode=decode))


def test_a_writer_that_writes_beside_its_pages_differs() -> None:
    def append(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, **more: Any) -> None:
        paged_pair.append(k, v, k_cache, v_cache, **more)
        v_cache.as_strided((1,), (1,), 0).zero_()

    found = setting(["decode"], layout="interleaved", append="paged_pair.py:append")
    pair = replace(found.subject.pair, append=Appending.of(append, "append"))
    wrong = replace(found, subject=found.subject.with_pair(pair))
    assert not differs(run(found))
    assert "append wrote beside the slots of the cache" in run(wrong)["decode"].reason
