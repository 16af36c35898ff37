"""Bytes: by calculation, of stores that are allocated, and of the subject's own cache."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from codec_subjects import HERE, bench, coding, decoder_setting, transformers_setting

from kvparity.core.bits import differing
from kvparity.labs.codec.coding import Coding
from kvparity.labs.codec.document import CodecDocument
from kvparity.labs.codec.lab import examine_codec
from kvparity.labs.codec.layers import LayerKV
from kvparity.labs.codec.prepare import Bench, plan_of
from kvparity.labs.codec.registry import find
from kvparity.labs.codec.sizes import calculated, check, fill, measured, plain
from kvparity.labs.codec.text import render
from kvparity.subjects.base import SubjectError
from kvparity_kernels import store

FAMILIES = ("llama", "gemma3_text", "gemma4_text", "qwen3_next", "decoder")
F32 = torch.float32


@cache
def lab(name: str) -> Bench:
    setting = decoder_setting() if name == "decoder" else transformers_setting(name)
    return bench(setting, lengths=[5, 40])


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("codec", ["int8(8)", "fp8_e4m3(head)", "k=int4(8),v=nf4(8)"])
def test_calculated_bytes_are_those_of_allocated_stores(name: str, codec: str) -> None:
    made = lab(name)
    sizes = check(made.plan, coding(made, codec), made.caches, F32)
    assert [size.length for size in sizes] == [5, 40]
    assert all(size.calculated == size.measured > 0 for size in sizes)


@pytest.mark.parametrize("name", FAMILIES)
def test_layers_left_exact_are_counted_in_the_execution_dtype(name: str) -> None:
    made = lab(name)
    none = coding(made, "int8(8)").of(frozenset())
    (short, long) = check(made.plan, none, made.caches, F32)
    assert long.calculated == plain(made.plan, 40, F32)
    some = none.of(frozenset({0}))
    assert short.calculated > check(made.plan, some, made.caches, F32)[0].calculated


def wrong_plans(plan: tuple[LayerKV, ...]) -> dict[str, tuple[LayerKV, ...]]:
    windowed = next(i for i, x in enumerate(plan) if x.window)
    shared = next((i for i, x in enumerate(plan) if x.kind == "shared"), None)

    def changed(number: int, **keys: Any) -> tuple[LayerKV, ...]:
        return (*plan[:number], replace(plan[number], **keys), *plan[number + 1 :])

    found = {
        "a window ignored": changed(windowed, kind="full", window=0),
        "a window one key short": changed(windowed, window=plan[windowed].window - 1),
        "too many heads": changed(windowed, kv_heads=plan[windowed].kv_heads + 1),
        "too wide heads": changed(windowed, head_dim=plan[windowed].head_dim * 2),
        "a layer left out": changed(windowed, kind="state"),
    }
    if shared is not None:
        found["a sharing layer that stores"] = changed(shared, kind="full")
    return found


def refused(plan: tuple[LayerKV, ...], codec: Coding, made: Bench) -> bool:
    try:
        check(plan, codec, made.caches, F32)
    except SubjectError as error:
        return "bytes by the layer plan, but its stores take" in str(error)
    return False


@pytest.mark.parametrize("name", ["gemma3_text", "gemma4_text", "decoder"])
def test_a_wrong_layer_plan_is_caught(name: str) -> None:
    made = lab(name)
    codec = coding(made, "int8(8)")
    assert not refused(made.plan, codec, made)
    for what, plan in wrong_plans(made.plan).items():
        assert refused(plan, codec, made), f"{what} was not seen"


@pytest.mark.slow
def test_a_short_cache_does_not_show_an_ignored_window_and_the_report_says_so() -> None:
    made = lab("gemma3_text")
    plan = wrong_plans(made.plan)["a window ignored"]
    only = {5: made.caches[5]}
    check(plan, coding(made, "int8(8)"), only, F32)
    words = "no allocated cache passes the window of 8"
    assert words in _text(replace(made, caches=only))
    assert words not in _text(made)


def _text(made: Bench) -> str:
    codec = examine_codec(made, find("float32", HERE), budget=None, contexts=[100, 1000])
    facts: Any = {"versions": {}, "device": "cpu", "device_name": "x"}
    return render(
        CodecDocument(1, {"name": "c"}, facts, {}, made.run("w", "float32"), (), (codec,))
    )


def test_windows_stop_growing_and_sharing_layers_cost_nothing() -> None:
    made = lab("gemma4_text")
    codec = coding(made, "float32")
    own = {x.owner: x for x in made.plan if x.stores}
    full = sum(2 * x.kv_heads * x.head_dim * 4 for x in own.values() if not x.window)
    short = sum(2 * x.kv_heads * x.head_dim * 4 for x in own.values() if x.window)
    for length in (1, 7, 8, 9, 1_000_000):
        wanted = full * length + short * min(length, 8)
        assert calculated(made.plan, codec, length, F32) == wanted
    assert any(x.kind == "shared" for x in made.plan)


def test_a_long_window_is_passed_by_default() -> None:
    """Windows of up to 1,024 keys: the longer cache is half a window longer than the window."""
    text = {"name": "short", "prompt_tokens": [3, 4], "generate": 2}
    made = bench(transformers_setting("gemma3_text", workloads=[text]))
    assert sorted(made.caches) == [4, 12]


def test_a_sharing_layer_of_the_decoder_reads_its_owner() -> None:
    plan = plan_of(decoder_setting().subject)
    assert [(x.kind, x.owner, x.window) for x in plan] == [
        ("window", 0, 8),
        ("full", 1, 0),
        ("shared", 0, 8),
    ]


@pytest.mark.parametrize("format", ["int8(8)", "int4(16)"])
def test_the_decoders_own_cache_takes_the_calculated_bytes(format: str) -> None:
    """Its cache in that format, with as many slots as tokens (it keeps no ring here)."""
    made, ids = lab("decoder"), list(range(40, 60))
    own = decoder_setting("float32", format).subject
    mine: Any = fill(own, ids)
    codec = coding(made, format)
    flat = tuple(replace(x, window=0, kind="full") if x.window else x for x in made.plan[:2])
    slack = mine.bytes() * len(ids) / (len(ids) + 3)  # three empty slots behind the sequence
    assert calculated(flat, codec, len(ids), F32) == slack


@pytest.mark.parametrize("format", ["int8(8)", "int4(16)", "fp8_e4m3(head)", "bfloat16"])
def test_codes_put_in_from_outside_are_those_of_the_decoders_own_format(format: str) -> None:
    """In the first layer keys depend on tokens alone: there both ways must store the same."""
    exact, own = decoder_setting("float32"), decoder_setting("float32", format)
    ids = list(range(60, 80))
    fresh, stored = fill(exact.subject, ids), fill(own.subject, ids)
    k, v = fresh.read(0, 0, 0, len(ids))
    made = coding(lab("decoder"), format)
    if format.startswith("fp8"):  # the decoder draws its scales; the lab would calibrate them
        cache: Any = stored
        drawn = tuple({"scale": x.static.double()} for x in (cache.k[0], cache.v[0]))
        made = replace(made, fixed={**made.fixed, 0: drawn})
    found = stored.read(0, 0, 0, len(ids))
    for mine, theirs in zip(made.apply(0, k, v), found, strict=True):
        assert not bool(differing(mine, theirs.float()).any())
    # In the second layer they part: the decoder's rows see their own keys coded, too.
    other = made.apply(1, *fresh.read(1, 0, 0, len(ids)))
    parts = zip(other, stored.read(1, 0, 0, len(ids)), strict=True)
    assert any(bool(differing(mine, theirs.float()).any()) for mine, theirs in parts)


def test_bytes_come_from_memory_not_from_shapes() -> None:
    made = lab("llama")
    codec = coding(made, "int8(8)")
    taken = measured(made.caches[40], codec, 40, F32)
    format = store.StoreFormat.parse("int8(8)")
    shapes = [(x.kv_heads, x.head_dim) for x in made.plan]
    assert taken == 40 * 2 * sum(format.bytes_per_token(h, d) for h, d in shapes)
    padded = coding(made, "data/odd_codecs.py:Leaves")
    honest = coding(made, "data/odd_codecs.py:Honest")
    long = made.caches[40]
    assert measured(long, padded, 40, F32) == 2 * measured(long, honest, 40, F32)
