"""What is counted of a forward call, and what a listener is told, against calls made by hand."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from plain_host import CONFIG, WINDOW
from torch import Tensor
from transformers import DynamicCache
from transformers_listening import Everything

from kvparity.core.relied.transformers import ATTENTIONS
from kvparity.subjects.base import UnsupportedError
from kvparity.subjects.hf.emit_events import EventEmitter, visible
from kvparity.subjects.hf.run_counts import Observation, called, current, observing, watch
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.stream import Launched, emit


class Model(torch.nn.Module):
    """Fills its cache, and asks for an attention function ``asks`` times."""

    def __init__(self, asks: int = 0) -> None:
        super().__init__()
        self.asks = asks
        watch(self)

    def forward(
        self, input_ids: Tensor, past_key_values: Any = None, position_ids: Any = None
    ) -> None:
        for _ in range(self.asks):
            assert ATTENTIONS.get()["of a test"](1, two=2) == (1, 2)
        if past_key_values is not None:
            one = torch.zeros(1, 1, input_ids.shape[1], 2)
            past_key_values.update(one, one, 0)


def ids(count: int) -> Tensor:
    return torch.zeros(1, count, dtype=torch.int64)


def test_a_forward_is_a_step_of_decoding_if_one_token_meets_a_filled_cache() -> None:
    model, seen, cache = Model(), Observation(), DynamicCache()
    model(ids(1))  # nobody looks
    steps = [(1, "prefill"), (1, "decode"), (2, "prefill"), (1, "decode")]
    for count, kind in steps:
        before = Counter(seen.counts)
        with observing(seen):
            seen.masks.append("of the call before")
            model(ids(count), past_key_values=cache)
            assert seen.masks == []
        assert seen.counts - before == {f"forward.{kind}": 1, "cache.DynamicCache": 1}
    assert seen.cache is cache
    with observing(seen):
        model(input_ids=ids(1))
    assert (seen.counts["cache.none"], seen.counts["forward.prefill"]) == (1, 3)
    assert seen.cache is None


def test_each_call_of_an_attention_function_counts_once() -> None:
    mapping = ATTENTIONS.get()
    mapping["of a test"] = lambda one, two: (one, two)
    try:
        seen = Observation()
        with observing(seen):
            Model(asks=3)(ids(2))
            for name in ("attention.prefill", "linear", "attention.prefill"):
                emit(Launched(name, {}))
    finally:
        del mapping["of a test"]
    wanted = {"backend.of a test": 3, "attention.prefill": 2, "forward.prefill": 1, "cache.none": 1}
    assert seen.counts == wanted
    assert called(seen.counts) == ["of a test"]
    assert called(Counter({"backend.b": 1, "backend.a": 2, "cache.none": 1})) == ["a", "b"]


def test_an_observation_ends_whatever_happens_inside() -> None:
    order = ReductionOrder(split=32, tile=16, block_m=16)
    seen = Observation(order=order, masks=["one"])

    def fails() -> None:
        with observing(seen):
            assert current() is seen
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert seen.masks == []
    assert current() is not seen
    assert current().order == ReductionOrder()


# What a row sees


def flags(*rows: str) -> Tensor:
    return torch.tensor([[[[mark == "#" for mark in row] for row in rows]]])


@pytest.mark.parametrize(
    ("name", "row", "queries", "causal", "wanted"),
    [
        ("sdpa", 1, 3, None, range(2)), ("sdpa", 2, 3, True, range(3)),
        ("sdpa", 0, 2, None, range(1)), ("sdpa", 0, 1, None, range(5)),
        ("sdpa", 0, 3, False, range(5)), ("eager", 1, 3, None, range(5)),
        ("eager", 1, 3, True, range(5)), ("flash", 1, 2, 0, range(2)),
    ],
)  # fmt: skip
def test_without_a_mask_a_row_sees(
    name: str, row: int, queries: int, causal: Any, wanted: range
) -> None:
    assert visible(name, None, row, queries, 5, causal) == wanted


@pytest.mark.parametrize(
    ("marks", "wanted"),
    [
        ("#....", range(1)), ("###..", range(3)), (".##..", range(1, 3)), ("....#", range(4, 5)),
        (".....", range(0)), ("#####", range(5)), ("#.#..", None), (".#..#", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["bool", "float32", "bfloat16", "half as low"])
def test_a_row_of_a_mask_is_read(marks: str, wanted: range | None, kind: str) -> None:
    mask = torch.nn.functional.pad(flags("#####", marks), (0, 2), value=True)  # slots beyond keys
    if kind != "bool":
        dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
        low = torch.finfo(dtype).min
        low = low * 0.75 if kind == "half as low" else low
        mask = torch.where(mask, torch.tensor(-3.0 if kind == "half as low" else 0.0), low)
        mask = mask.to(dtype)
    if wanted is not None:
        assert visible("eager", mask, 1, 2, 5, None) == wanted
        return
    places = [i for i, mark in enumerate(marks) if mark == "#"]
    words = f"eager sees {len(places)} keys between {places[0]} and {places[-1]}; only"
    with pytest.raises(UnsupportedError, match=words):
        visible("eager", mask, 1, 2, 5, None)


@pytest.mark.parametrize("mask", ["mask", flags("#")[0], flags("#")[None]], ids=["text", "3", "5"])
def test_what_is_no_matrix_tells_nothing(mask: Any) -> None:
    with pytest.raises(UnsupportedError, match="what attention flex sees cannot be reported"):
        visible("flex", mask, 0, 1, 1, None)


# What a listener is told

HEADS = 2


def masked(start: int, stop: int, first: int, window: int) -> Tensor:
    rows = [[int(q - window < k <= q) for k in range(first, stop)] for q in range(start, stop)]
    return torch.tensor([[rows]]).bool()


class Some(Everything):
    """Wants some of the positions, if those are named."""

    some: tuple[int, ...] = ()

    def wants(self, sequence: int, positions: Any) -> Any:
        assert sequence == 3
        assert isinstance(positions, range)
        return [p for p in positions if not self.some or p in self.some]


def told_of(cache: Any, filled: int, spans: list[tuple[int, int]], heard: Some, **more: Any) -> Any:
    """Run spans by hand; queries, keys, values and outputs are numbered by their position."""
    out: Any = None
    for start, stop in spans:
        emitter = EventEmitter(heard, CONFIG, sequence=3, filled=start)
        positions = torch.arange(start, stop)[None] + 50
        emitter.forward(stop - start, cache, None if filled else positions)
        place = torch.arange(start, stop).float()
        for layer, window in ((0, WINDOW), (1, 10**6)):
            key = (place[None, None, :, None] + layer / 4).expand(1, 1, -1, 2)
            value = -key
            given = cache.update(key, value, layer) if cache is not None else (key, value)
            first = stop - given[0].shape[2]
            query = (place[None, None, :, None] + 0.5).expand(1, HEADS, -1, 2)
            queries = query[:, :, more.get("left_out", 0) :]
            mask = masked(stop - queries.shape[2], stop, first, window)
            result = queries.transpose(1, 2) + layer

            def function(module: Any, *args: Any, _out: Any = result, **more: Any) -> Any:
                return _out, None

            attended = emitter.emitting("eager", function)
            layer_of = SimpleNamespace(layer_idx=layer)
            out = attended(layer_of, queries, *given, mask, **more.get("call", {}))
            assert out[0] is result
        emitter.close()
        assert cache is None or "update" not in vars(cache)
    return out


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("left_out", [0, 2])
def test_each_row_is_told_as_it_was_given(cached: bool, left_out: int) -> None:
    cache = DynamicCache(config=CONFIG) if cached else None
    spans = [(0, 5), (5, 6), (6, 9)] if cached else [(0, 9)]
    if left_out:
        spans = [each for each in spans if each[1] - each[0] > left_out]
        spans = spans[:1]
    heard = Some()
    told_of(cache, 0, spans, heard, left_out=left_out)
    stop = spans[-1][1]
    for (layer, position), (k, v) in heard.written.items():
        assert k.tolist() == [[position + layer / 4] * 2]
        assert v.equal(-k)
    assert len(heard.written) == 2 * stop
    wanted = [p for a, b in spans for _ in range(2) for p in range(a + left_out, b)]
    assert [row.position for row in heard.rows] == wanted
    for row in heard.rows:
        first = max(0, row.position - WINDOW + 1) if row.layer == 0 else 0
        assert (row.first, row.length) == (first, row.position + 1)
        assert (row.sequence, row.told, row.lse) == (3, row.position + 50, None)
        keys = [p + row.layer / 4 for p in range(first, row.position + 1)]
        assert row.k[:, 0, 0].tolist() == keys
        assert row.v.equal(-row.k)
        assert row.k.shape == (len(keys), 1, 2)
        assert row.q.tolist() == [[row.position + 0.5] * 2] * HEADS
        assert row.out.equal(row.q + row.layer)
        assert row.decode == (row.position == 5 and not left_out and cached)
        assert (row.scale, row.softcap, row.sinks) == (2**-0.5, 0.0, None)


def test_the_rules_of_a_row_are_told_and_only_wanted_rows() -> None:
    heard = Some()
    heard.some = (1, 2)
    call = {"scaling": 3, "softcap": 2.5, "s_aux": torch.tensor([[1.0], [2.0]]).bfloat16()}
    told_of(DynamicCache(config=CONFIG), 1, [(0, 4)], heard, call=call)
    assert [(row.layer, row.position) for row in heard.rows] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    for row in heard.rows:
        assert (row.scale, row.softcap, row.told) == (3.0, 2.5, None)
        assert row.sinks is not None
        assert row.sinks.tolist() == [1.0, 2.0]
        assert row.sinks.dtype == torch.float32


def test_a_first_token_alone_is_no_step_of_decoding() -> None:
    heard = Some()
    told_of(DynamicCache(config=CONFIG), 0, [(0, 1), (1, 2)], heard)
    assert [row.decode for row in heard.rows] == [False, False, True, True]


def test_arguments_without_a_name_cannot_be_told() -> None:
    emitter = EventEmitter(Some(), CONFIG, sequence=3, filled=0)
    emitter.forward(1, None, None)
    attended = emitter.emitting("eager", lambda *args: (torch.zeros(1, 1, 1, 2), None))
    x = torch.zeros(1, 1, 1, 2)
    with pytest.raises(UnsupportedError, match="2 arguments without a name"):
        attended(SimpleNamespace(layer_idx=0), x, x, x, None, 1.0, 2.0)


def test_what_was_wrapped_is_undone_whatever_happens() -> None:
    cache = DynamicCache(config=CONFIG)
    emitter = EventEmitter(Some(), CONFIG, sequence=3, filled=0)

    def fails() -> None:
        with observing(Observation(emitter=emitter)):
            emitter.forward(1, cache, None)
            assert "update" in vars(cache)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert "update" not in vars(cache)
