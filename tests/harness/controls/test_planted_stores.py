"""What is read of codes and of sinks, and how linears and norms add: as a defect says."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from attention_spy import Bare, PairSpy, Spy, normal
from planted_calls import decoded, kv_of, prefilled
from planting import Told, chunk, one
from torch import Tensor

from kvparity.controls import linears, parts, semantics, stores, windows
from kvparity.plan.schedule import Layout, Member
from kvparity.subjects.base import UnsupportedError
from kvparity.subjects.decoder.cache import KVCache
from kvparity.subjects.decoder.config import DecoderShape
from kvparity.subjects.decoder.model import Ops
from kvparity.subjects.decoder.storage import Storage
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.store import StoreFormat


def coded() -> KeysValues:
    kv, format = kv_of(9), StoreFormat.parse("fp8_e4m3(head)")
    codes = [x.to(torch.float8_e4m3fn) for x in (kv.k, kv.v)]
    scales = [torch.tensor([0.5, 3.0]), torch.tensor([1.3, 0.7])]
    return replace(kv, k=codes[0], v=codes[1], format=format, k_scale=scales[0], v_scale=scales[1])


@pytest.mark.parametrize("plant", [stores.scale_ignored_in_prefill, stores.dequant_rounds])
def test_codes_are_read_otherwise(plant: Any) -> None:
    spy, kv = Spy(), coded()
    planted = plant(Bare(spy.ops()))
    decoded(planted, kv)
    prefilled(planted, kv, (2,))
    of_decode, of_prefill = (call.kv for call in spy.calls)
    if plant is stores.scale_ignored_in_prefill:
        assert of_decode is kv
        assert of_prefill == replace(kv, k_scale=None, v_scale=None)
    else:
        for each in (of_decode, of_prefill):
            for name in "kv":
                codes, scale = getattr(kv, name), getattr(kv, f"{name}_scale")
                wide = (codes.float() * scale[:, None]).bfloat16().float()
                assert torch.equal(getattr(each, name), wide)
            assert (each.format, each.k_scale, each.v_scale) == (None, None, None)
        decoded(planted, replace(kv, k_scale=None, v_scale=None))  # no scale is a scale of 1
        assert torch.equal(spy.calls[2].kv.k, kv.k.float())
    with pytest.raises(UnsupportedError, match="needs a store"):
        prefilled(planted, kv_of(9), (2,))
    if plant is stores.scale_ignored_in_prefill:  # without a scale, other codes have no meaning
        codes, scales = torch.ones_like(kv.k, dtype=torch.int8), torch.ones(len(kv.k), 2, 1)
        own = {"k": codes, "v": codes, "k_scale": scales, "v_scale": scales}
        dynamic = replace(kv, format=StoreFormat.parse("int8(8)"), **own)
        with pytest.raises(UnsupportedError, match="with static scales, such as fp8_e4m3"):
            prefilled(planted, dynamic, (2,))
    with pytest.raises(UnsupportedError, match="the reference decoder alone"):
        plant(PairSpy().subject())


def cached(store: str, layers: int = 1) -> tuple[Any, KVCache]:
    """A subject whose session has a cache of ours: two heads of 16 numbers."""
    shape = DecoderShape("llama", 9, 8, layers, 2, 2, 16, 8, 64, 1e-5)
    ones = torch.ones(2)
    cache = KVCache(
        shape, [Member("a", 9, 2)], Layout(), Storage(StoreFormat.parse(store)),
        scales=((ones, ones),) * layers, dtype=torch.float32, device=torch.device("cpu"), seed=0,
    )  # fmt: skip
    subject: Any = Told()
    subject.session = lambda members, layout: SimpleNamespace(cache=lambda: cache)
    return subject, cache


@pytest.mark.parametrize(
    "subject", [Bare(Spy().ops()), cached("int8(4)")[0], cached("bfloat16")[0]]
)
def test_scales_that_no_first_input_sets_are_refused(subject: Any) -> None:
    planted = stores.scale_from_first_input(subject)
    with pytest.raises(UnsupportedError, match="needs a store with static scales"):
        planted.session([Member("a", 9, 2)], Layout())


@pytest.mark.parametrize("layers", [1, 2])
def test_the_first_input_of_a_layer_sets_its_scales_for_good(layers: int) -> None:
    subject, cache = cached("fp8_e4m3(head)", layers)
    stores.scale_from_first_input(subject).session([Member("a", 9, 2)], Layout())
    most = float(torch.finfo(torch.float8_e4m3fn).max)
    first = normal(3, 2, 16)
    largest = float(first.abs().max())
    for layer in range(layers):
        for factor, at in ((1.0 + layer, [0, 1, 2]), (16.0, [3, 4, 5])):
            cache.store(layer, [torch.tensor(at)], factor * first, -2 * factor * first)
        k, v = cache.k[layer].static, cache.v[layer].static
        assert k is not None
        assert v is not None
        torch.testing.assert_close(k, torch.full((2,), (1 + layer) * largest / most))
        torch.testing.assert_close(v, 2 * k)
        # What comes first just fits; what is sixteen times as large is cut off at the same scale.
        found = cache.k[layer].decode(cache.k[layer].get(torch.arange(6)), torch.float32)
        torch.testing.assert_close(found[:3], (1.0 + layer) * first, rtol=0.07, atol=0.01)
        assert float(found[3:].abs().max()) <= (1.001 + layer) * largest


def test_a_cache_without_rings_has_none_to_overwrite(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = cached("bfloat16")[0].session([], Layout())
    monkeypatch.setattr(Bare, "session", lambda self, members, layout: opened)
    with pytest.raises(UnsupportedError, match="needs rings, and the cache has none"):
        windows.ring_overwritten(Bare(Spy().ops(), window=4)).session([], Layout(chunk=7))


def test_a_sink_that_counts_twice() -> None:
    spy, sinks = Spy(), normal(4)
    planted = semantics.PLANTED["sink-twice"](Bare(spy.ops()))
    decoded(planted, kv_of(9), sinks=sinks)
    prefilled(planted, kv_of(9), (2,), sinks=sinks)
    for call in spy.calls:
        torch.testing.assert_close(call.more["sinks"].exp(), 2 * sinks.exp())
    with pytest.raises(UnsupportedError, match="needs attention sinks"):
        decoded(planted, kv_of(9))


# Linears

PARTS: list[tuple[Any, int, int, int, int]] = [
    # plant, rows, columns, depth, parts
    *((linears.linear_kernel_by_rows, rows, 3, 32, n) for rows, n in
      [(1, 1), (2, 2), (3, 1), (4, 1), (5, 4), (8, 4), (9, 8), (16, 8), (17, 2), (32, 2), (33, 4),
       (64, 4), (65, 4), (200, 4)]),
    (linears.linear_kernel_by_rows, 9, 3, 5, 5),
    (linears.linear_split_where_narrow, 8, 32, 32, 4),
    (linears.linear_split_where_narrow, 9, 32, 32, 1),
    (linears.linear_split_where_narrow, 8, 33, 32, 1),
    (linears.linear_split_by_tokens, 1, 3, 64, 32),
    (linears.linear_split_by_tokens, 16, 3, 64, 2),
    (linears.linear_split_by_tokens, 17, 3, 64, 1),
    (linears.linear_split_by_tokens, 33, 3, 64, 1),
]  # fmt: skip


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("plant", "rows", "columns", "depth", "number"), PARTS)
def test_a_product_is_summed_in_so_many_parts(
    plant: Any, rows: int, columns: int, depth: int, number: int, biased: bool
) -> None:
    asked: list[tuple[Tensor, Tensor, Any]] = []

    def linear(x: Tensor, w: Tensor, bias: Any = None, *, out_dtype: Any = None) -> Tensor:
        asked.append((x, w, out_dtype))
        wide = x.double() @ w.double().T + (0 if bias is None else bias.double())
        return wide.to(out_dtype or x.dtype)

    x, w = normal(rows, depth), normal(columns, depth, seed=1)
    bias = normal(columns, seed=2) if biased else None
    found = plant(Bare(Spy().ops(), ops=Ops(linear=linear))).ops.linear(x, w, bias)
    assert len(asked) == number
    assert torch.equal(torch.cat([each[0] for each in asked], 1), x)
    assert torch.equal(torch.cat([each[1] for each in asked], 1), w)
    partial = torch.bfloat16 if plant is linears.linear_split_by_tokens else torch.float32
    if number == 1:
        right = linear(x, w, bias)
    else:
        assert {each[2] for each in asked} == {partial}
        right = sum(linear(a, b, out_dtype=partial) for a, b, _ in asked[:]).float()  # type: ignore[union-attr] # a tensor
        right = right if bias is None else right + bias
    assert torch.equal(found, right)
    assert found.dtype == torch.float32
    narrow = plant(Bare(Spy().ops(), ops=Ops(linear=linear))).ops.linear(
        x, w, bias, out_dtype=torch.float16
    )
    assert torch.equal(narrow, right.half()) or number == 1
    assert narrow.dtype == torch.float16
    short = plant(Bare(Spy().ops(), ops=Ops(linear=linear))).ops.linear(x.half(), w.half())
    assert short.dtype == torch.float16  # that of the rows, where none is asked for


@pytest.mark.parametrize("rows", [15, 16])
@pytest.mark.parametrize("biased", [False, True])
def test_a_kernel_for_many_rows_contracts_products_and_sums(rows: int, biased: bool) -> None:
    x, w = normal(rows, 7), normal(3, 7, seed=1)
    bias = normal(3, seed=2) if biased else None

    def linear(x: Tensor, w: Tensor, bias: Any = None, **more: Any) -> Tensor:
        return torch.zeros(len(x), len(w))

    found = linears.linear_contracts_by_rows(Bare(Spy().ops(), ops=Ops(linear=linear))).ops.linear(
        x, w, bias
    )
    planted = linears.linear_contracts_by_rows(Bare(Spy().ops(), ops=Ops(linear=linear)))
    if rows == 16:
        half = torch.float16
        assert planted.ops.linear(x, w, bias, out_dtype=half).dtype == half  # type: ignore[attr-defined] # a decoder's
        assert planted.ops.linear(x.half(), w.half()).dtype == half  # type: ignore[attr-defined] # a decoder's
    right = torch.zeros(rows, 3)
    for i in range(rows if rows == 16 else 0):
        for j in range(3):
            total = torch.tensor(0.0)
            for a, b in zip(x[i], w[j], strict=True):
                total = (total.double() + a.double() * b.double()).float()
            right[i, j] = total if bias is None else total + bias[j]
    assert torch.equal(found, right)


@pytest.mark.parametrize(("rows", "number"), [(1, 1), (2, 2), (8, 2), (9, 1)])
def test_a_step_that_verifies_drafts_sums_in_two_parts(
    rows: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longest span of the step decides, whatever the number of rows of the product."""
    asked: list[Tensor] = []

    def linear(x: Tensor, w: Tensor, bias: Any = None, *, out_dtype: Any = None) -> Tensor:
        asked.append(x)
        return x @ w.T

    class Computing:
        def __init__(self, subject: Any) -> None:
            self.subject = subject

        def forward(self, step: Any, ids: Any) -> Any:
            yield self.subject.ops.linear(normal(5, 32), normal(3, 32, seed=1))

    monkeypatch.setattr(Bare, "session", lambda self, members, layout: Computing(self))
    planted = linears.linear_by_rows_per_request(Bare(Spy().ops(), ops=Ops(linear=linear)))
    session = planted.session([Member("a", 20, 2)] * 2, Layout())
    (found,) = session.forward((one(0, 4), chunk(1, 3, 3 + rows)), [[1], [1] * rows])
    assert [x.shape[1] for x in asked] == [32 // number] * number
    torch.testing.assert_close(found, normal(5, 32) @ normal(3, 32, seed=1).T)


@pytest.mark.parametrize("rows", [15, 16])
def test_a_norm_of_many_rows_adds_in_blocks_of_two(rows: int) -> None:
    x, w = normal(rows, 40), normal(40, seed=1)
    ops = Ops(rms_norm=lambda x, w, eps, **more: torch.zeros_like(x))
    found = linears.norm_block_by_rows(Bare(Spy().ops(), ops=ops)).ops.rms_norm(x, w, 1e-3)
    right = torch.zeros_like(x)
    if rows == 16:
        s = x * x
        lanes = torch.zeros(rows, 2)
        for at in range(0, 40, 2):
            lanes = lanes + s[:, at : at + 2]
        root = torch.sqrt((lanes.sum(1) / 40 + 1e-3).double()).float()
        right = x * torch.reciprocal(root)[:, None] * w
    assert torch.equal(found, right)


@pytest.mark.parametrize("plant", [linears.linear_kernel_by_rows, parts.hit_merges_states])
def test_a_defect_of_our_decoder_is_planted_in_it_alone(plant: Any) -> None:
    with pytest.raises(UnsupportedError, match="the reference decoder alone"):
        plant(PairSpy().subject())
