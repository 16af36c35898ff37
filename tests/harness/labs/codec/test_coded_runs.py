"""Runs with coded layers: what is coded, when, and what shows in the drift."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from codec_subjects import HERE, bench, coding, decoder_setting, runs, transformers_setting
from torch import Tensor

from kvparity.core.bits import differing
from kvparity.labs.codec.budget import Budget, choose
from kvparity.labs.codec.lab import examine_codec
from kvparity.labs.codec.prepare import Bench, plan_of
from kvparity.labs.codec.registry import find
from kvparity.labs.codec.runs import CodedRun, coder
from kvparity.labs.codec.session import Touched, live
from kvparity.labs.codec.stages import StageShare, stage_shares
from kvparity.plan.schedule import Layout, Member, Span
from kvparity.subjects.base import CacheView, SubjectError, UnsupportedError

pytestmark = pytest.mark.slow
FAMILIES = ("llama", "gemma3_text", "gemma4_text", "qwen3_next")


@cache
def lab(name: str, execution: str = "float32", dtype: str | None = None) -> Bench:
    if name == "decoder":
        setting = decoder_setting(execution)
    else:
        setting = transformers_setting(name, execution)
    return bench(setting, None if dtype is None else getattr(torch, dtype))


def same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and not bool(differing(a, b).any())


# what is coded


@pytest.mark.parametrize("name", [*FAMILIES, "decoder"])
def test_an_exact_codec_drifts_zero_bits_at_every_depth(name: str) -> None:
    made = lab(name)
    measured, exact = runs(made), coding(made, "float32")
    for k in range(len(made.reference.layers) + 1):
        found = measured.measure(exact.of(frozenset(range(k))))
        tokens = 3 if name == "decoder" else 10
        assert (found.tokens, found.differing, found.max_abs_dlogp) == (tokens, 0, 0.0)


@pytest.mark.parametrize("name", [*FAMILIES, "decoder"])
def test_each_coded_layer_shows(name: str) -> None:
    made = lab(name)
    measured, lossy = runs(made), coding(made, "int4(8)")
    assert measured.measure(lossy.of(frozenset())).differing == 0
    for layer in range(len(made.reference.layers)):
        assert measured.measure(lossy.of(frozenset({layer}))).differing > 0


@pytest.mark.parametrize("name", ["gemma3_text", "decoder"])
def test_every_token_is_coded_once_and_by_nobody_else(name: str) -> None:
    """After prompt and two decode steps the coded layer holds one round trip of what was written,
    and the first layer, which sees no coded key, holds what it holds in an exact run."""
    made = lab(name)
    subject, ids = made.subject, list(made.tokens[-1])
    lossy = replace(coding(made, "data/odd_codecs.py:Unexplained"), layers=frozenset({1}))
    steps = [Span(0, 0, 5, 5), Span(0, 5, 6, 6, decode=True), Span(0, 6, 7, 7, decode=True)]

    def held(after: Any) -> tuple[dict[int, list[Tensor]], list[Tensor]]:
        """The cache in the end, and what each step wrote into layer 1 before it was coded."""
        wrote: list[Tensor] = []

        def watch(cache: CacheView, span: Span) -> None:
            here = live(cache, 1, span)
            wrote.append(torch.stack(cache.read(1, 0, here.start, here.stop)))
            after(cache, span)

        session = Touched(subject, watch).session([Member("m", 7, 5)], Layout(chunk=5))
        with torch.inference_mode():
            for span in steps:
                list(session.forward((span,), [ids[span.start : span.stop]]))
        cache = session.cache()
        assert cache is not None
        whole = Span(0, 0, 7, 7)
        return {
            layer: list(cache.read(layer, 0, live(cache, layer, whole).start, 7))
            for layer in range(cache.layers())
        }, wrote

    exact, _ = held(lambda cache, span: None)
    coded, wrote = held(coder(lossy))
    assert all(same(a, b) for a, b in zip(exact[0], coded[0], strict=True))
    fresh = torch.cat(wrote, 1)
    wanted = lossy.apply(1, fresh[0], fresh[1])
    for found, trip in zip(coded[1], wanted, strict=True):
        assert same(found, trip[len(trip) - len(found) :].contiguous())
    twice = lossy.apply(1, *wanted)  # this codec tells one round trip from two
    assert not any(same(a, b) for a, b in zip(twice, wanted, strict=True))


def test_a_prompt_sees_its_own_keys_fresh() -> None:
    """Rows of the prompt's step keep their bits; the run is refused if they do not."""
    made = lab("llama")
    measured = runs(made)
    assert int(measured.rows.sum()) == 10
    assert len(measured.rows) == 12  # two sequences; the first token of each is the prompt's
    everything = runs(made)
    everything.rows = torch.zeros_like(measured.rows)
    with pytest.raises(SubjectError, match="does not repeat itself"):
        everything.measure(coding(made, "int4(8)"))


class Shaky:
    """A subject whose second session computes other bits."""

    def __init__(self, subject: Any) -> None:
        self.subject, self.sessions = subject, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.subject, name)

    def session(self, members: Sequence[Member], layout: Layout) -> Any:
        self.sessions += 1
        inner = self.subject.session(members, layout)
        if self.sessions == 2:
            forward = inner.forward

            def shaken(step: Any, ids: Any) -> Iterator[Tensor]:
                for rows in forward(step, ids):
                    yield torch.nextafter(rows, torch.tensor(torch.inf))

            inner.forward = shaken
        return inner


def test_a_subject_that_does_not_repeat_itself_is_refused() -> None:
    setting = transformers_setting("llama")
    bench(setting)
    with pytest.raises(SubjectError, match="gave other bits the second time"):
        bench(replace(setting, subject=Shaky(setting.subject)))


# stages


def shares(made: Bench, name: str) -> dict[str, StageShare]:
    measured, coded = runs(made), coding(made, name)
    all_on = measured.measure(coded)
    found = stage_shares(measured, coded, made.reference.layers, all_on, made.execution)
    return {share.stage: share for share in found}


def test_an_added_stage_error_shows_in_its_share() -> None:
    made = lab("llama", dtype="bfloat16")
    fine = shares(made, "data/odd_codecs.py:Fourfold(23,127)")
    coarse_scale = shares(made, "data/odd_codecs.py:Fourfold(3,127)")
    coarse_cast = shares(made, "data/odd_codecs.py:Fourfold(23,3)")
    for found in (fine, coarse_scale, coarse_cast):
        assert list(found) == ["cast", "scale", "codebook", "accumulation"]
    assert fine["scale"].share_of_error == pytest.approx(0, abs=1e-3)
    assert coarse_scale["scale"].share_of_error > 0.9  # type: ignore[operator] # not None here
    assert coarse_scale["scale"].share_of_drift > 0.9  # type: ignore[operator]
    assert coarse_cast["cast"].share_of_error > 0.9  # type: ignore[operator]
    assert coarse_cast["cast"].share_of_drift > 0.9  # type: ignore[operator]
    assert coarse_cast["scale"].share_of_error < 0.1  # type: ignore[operator]


def test_accumulation_shows_where_attention_has_more_digits() -> None:
    """With int8 of one number per group every code is 127: bfloat16 is all of the error left."""
    found = shares(lab("llama", dtype="bfloat16"), "int8(1)")["accumulation"]
    assert found.reason is None
    assert found.share_of_error > 0.99  # type: ignore[operator]
    assert found.share_of_drift > 0.99  # type: ignore[operator]
    assert found.rel_rms_alone > 1e-4
    for made in (lab("llama"), lab("llama", "bfloat16")):
        hidden = shares(made, "int8(1)")["accumulation"]
        assert (hidden.without, hidden.share_of_drift) == (None, None)
        assert "rounds to it itself" in (hidden.reason or "")


def test_an_error_without_a_stage_stays_when_all_are_exact() -> None:
    made = lab("llama")
    document = examine_codec(
        made, find("data/odd_codecs.py:Unexplained", HERE), budget=None, contexts=None
    )
    assert document.stages_explain_all is False
    assert document.all_stages_exact.differing > 0
    document = examine_codec(made, find("int4(8)", HERE), budget=None, contexts=None)
    assert document.stages_explain_all is True
    assert document.all_stages_exact.differing == 0


# budgets


class Table:
    """Runs that are known beforehand: the drift of a set of layers."""

    def __init__(self, drift: Any) -> None:
        self.drift, self.asked = drift, []

    def measure(self, coding: Any) -> CodedRun:
        self.asked.append(coding)
        value = float(self.drift(coding))
        return CodedRun(1, 1, value, value, 0.0)


class Layers(frozenset[int]):
    def of(self, layers: frozenset[int]) -> frozenset[int]:
        return layers


@pytest.mark.parametrize(
    ("drift", "limit", "coded"),
    [
        (lambda s: sum((3, 1, 2, 4)[i] for i in s), 6, {0, 1, 2}),  # adds up as predicted
        (lambda s: sum((3, 1, 2, 4)[i] for i in s) ** 2, 6, {1}),  # compounds: fewer than their sum
        (lambda s: max((3, 1, 2, 4)[i] for i in s) if s else 0, 3.5, {0, 1, 2}),  # more than it
        (lambda s: sum((3, 1, 2, 4)[i] for i in s), 0.5, set()),
        (lambda s: sum((3, 1, 2, 4)[i] for i in s), 100, {0, 1, 2, 3}),
    ],
)
def test_a_budget_is_met_by_measurement(drift: Any, limit: float, coded: set[int]) -> None:
    table = Table(drift)
    single = [table.measure(frozenset({layer})) for layer in range(4)]
    found = choose(table, Layers(), single, Budget("approx_kl0", limit))  # type: ignore[arg-type]
    assert set(found.coded_layers) == coded
    assert set(found.exact_layers) == set(range(4)) - coded
    assert found.measured.approx_kl0 == drift(coded) <= limit
    assert frozenset(coded) in table.asked
    if len(coded) == 4:
        assert found.with_next_layer is None
    else:
        assert found.with_next_layer is not None
        assert found.with_next_layer.approx_kl0 > limit


def test_a_chosen_set_was_really_run() -> None:
    made = lab("gemma3_text")
    lossy, measured = coding(made, "int4(8)"), runs(made)
    count = len(made.reference.layers)
    single = [measured.measure(lossy.of(frozenset({i}))) for i in range(count)]
    limit = measured.measure(lossy).max_abs_dlogp * 0.7
    found = choose(measured, lossy, single, Budget("max_abs_dlogp", limit))
    assert 0 < len(found.coded_layers) < count
    assert runs(made).measure(lossy.of(frozenset(found.coded_layers))) == found.measured
    assert found.measured.max_abs_dlogp <= limit < found.with_next_layer.max_abs_dlogp  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["", "kl=1", "approx_kl0", "approx_kl0=-1", "max_abs_dlogp=nan"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no budget"):
        Budget.parse(text)
    assert str(Budget.parse("approx_kl0=1e-4")) == "approx_kl0 <= 0.0001"


# what cannot be examined


def test_what_cannot_be_examined_is_refused() -> None:
    once = [{"name": "short", "prompt_tokens": [3], "generate": 1}]
    with pytest.raises(UnsupportedError, match="generate: 2 or more"):
        bench(transformers_setting("llama", workloads=once))
    setting = transformers_setting("llama", "bfloat16")
    with pytest.raises(UnsupportedError, match="float32 cannot be kept by a cache in bfloat16"):
        bench(setting, torch.float32)
    with pytest.raises(UnsupportedError, match="no model with layers"):
        plan_of(object())  # type: ignore[arg-type]
    with pytest.raises(UnsupportedError, match="has 128 positions"):
        bench(setting, lengths=[129])


def test_a_ring_is_coded_as_any_other_cache() -> None:
    """Where the same keys lie elsewhere the same is coded, with the same drift."""
    ring = bench(decoder_setting(cache={"ring": True, "layout": "head-slot"}))
    plain = lab("decoder")
    for name in ("int4(8)", "float32"):
        found = runs(ring).measure(coding(ring, name))
        assert found == runs(plain).measure(coding(plain, name))
        assert (found.differing == 0) == (name == "float32")
