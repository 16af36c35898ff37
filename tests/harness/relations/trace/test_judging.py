"""Traces that are right but for one number of one row, just within what is allowed or just over."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import toy
from emitting import Emitting

from kvparity.record.path_run import PathRun, Setting
from kvparity.relations.bits_and_limits import Comparison
from kvparity.relations.trace.compare import compare
from kvparity.relations.trace.judging import Judgement, judge
from kvparity.relations.trace.lines import Line
from kvparity.relations.trace.tracing import Trace, declared, trace_side
from kvparity_contracts.paths import PathName

Change = Callable[[Line], Line]
ROW, LAYER = 5, 1
"""The row and the layer of it that are changed: in the middle, so that neither is the first."""


@cache
def honest() -> Trace:
    workloads = [{"name": "one", "prompt_tokens": [3, 9], "generate": 4, "pad": ["left"]}]
    setting = Setting(toy.contract(workloads=workloads), Emitting())
    plans = setting.plans("one")
    prompts = plans.prompts
    tokens = [[(7 * i + n) % 128 for n in range(prompts.length(i))] for i in range(2)]
    return trace_side(PathRun(setting, setting.subject, plans, PathName("decode"), tokens))


def judged(change: Change) -> Judgement:
    lines = list(honest().lines)
    lines[ROW] = change(lines[ROW])
    return judge(lines, declared(Emitting()), None)


def line(**more: int) -> Change:
    """Add to the numbers of the line."""
    return lambda old: replace(old, **{k: getattr(old, k) + n for k, n in more.items()})


def seen(**more: int) -> Change:
    """Add to the numbers of the layer."""

    def change(old: Line) -> Line:
        layer = old.layers[LAYER]
        layer = replace(layer, **{k: getattr(layer, k) + n for k, n in more.items()})
        return replace(old, layers=(*old.layers[:LAYER], layer, *old.layers[LAYER + 1 :]))

    return change


def weights(**more: Any) -> Change:
    """Set numbers of the layer's weights; those that are functions get the weights."""

    def change(old: Line) -> Line:
        layer = old.layers[LAYER]
        assert layer.weights is not None
        new = {k: v(layer.weights) if callable(v) else v for k, v in more.items()}
        layer = replace(layer, weights=replace(layer.weights, **new))
        return replace(old, layers=(*old.layers[:LAYER], layer, *old.layers[LAYER + 1 :]))

    return change


WITHIN: dict[str, Change] = {
    "nothing": line(),
    "a sum at its bound": weights(deviation=lambda w: w.bound),
    "a result at its bound": weights(out_ratio=1.0),
    "a sum that nobody can judge": weights(recomputed=True, deviation=lambda w: 9 * w.bound),
}


@pytest.mark.parametrize("name", WITHIN)
def test_what_is_allowed_is_no_break(name: str) -> None:
    found = judged(WITHIN[name])
    assert (found.outcome, found.broken) == ("holds", ())


SUM, MEAN = "weights sum to one", "the result is the weighted mean"
SCORES, FULL = "weights follow the scores", "the cache holds position + 1 keys"
WINDOW, FIRST = "a row sees min(position + 1, window) keys", "the first key is position + 1 - keys"
TOLD, STEP = "the position told is the place", "positions advance by one"
OVER: dict[str, tuple[Change, set[str]]] = {
    "a sum over its bound": (
        weights(deviation=lambda w: math.nextafter(w.bound, math.inf)), {SUM},
    ),
    "a sum that is no number": (weights(deviation=math.nan), {SUM}),
    "a result over its bound": (weights(out_ratio=math.nextafter(1, 2)), {MEAN}),
    "a result that is no number": (weights(out_ratio=math.nan), {MEAN}),
    "one head that is uniform": (weights(uniform=(3,)), {SCORES}),
    "one head that is flat": (weights(flat=(3,)), {SCORES}),
    "a key too many in the cache": (seen(length=1), {FULL}),
    "a key too few in the cache": (seen(length=-1), {FULL}),
    "a key too many": (seen(keys=1, first=-1), {WINDOW}),
    "a key too few": (seen(keys=-1, first=1), {WINDOW}),
    "keys from one earlier": (seen(first=-1), {FIRST}),
    "keys from one later": (seen(first=1), {FIRST}),
    "told one more": (line(told=1), {TOLD, STEP}),
    "told one less": (line(told=-1), {TOLD, STEP}),
    "computed one later": (line(position=1), {TOLD}),
    "computed one earlier": (line(position=-1), {TOLD}),
    "one key that is another": (seen(strange=1), {"keys and values are as written"}),
    "the store of another layer": (
        lambda old: replace(old, layers=tuple(replace(each, donors=(2,)) for each in old.layers)),
        {"a layer reads its owner's cache"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OVER)
def test_one_number_of_one_row_breaks_its_invariant_alone(name: str) -> None:
    change, wanted = OVER[name]
    found = judged(change)
    assert found.outcome == "differs"
    assert {each.invariant for each in found.broken} == wanted
    first, old = found.broken[0], honest().lines[ROW]
    assert (first.sequence, first.step, first.place) == (old.name, old.step, old.place)
    if first.layer is not None and "store of another" not in name:
        assert {each.layer for each in found.broken} == {old.layers[LAYER].layer}


def test_the_first_break_is_told_and_all_are_counted() -> None:
    lines = [replace(each, layers=(replace(each.layers[0], length=0),)) for each in honest().lines]
    found = judge(lines, declared(Emitting()), None)
    assert len(found.broken) == len(lines)
    assert found.reason == f"{found.broken[0]} ({len(lines)} breaks in all)"
    # What is missing hides no break, and is no break itself.
    assert judge(lines, declared(Emitting()), "a row is missing").outcome == "differs"
    assert judge(honest().lines, declared(Emitting()), "a row is missing").outcome == "void"


def compared(*changes: Change) -> Comparison:
    """The case of a trace with these changes of its row, one after the other."""
    lines = list(honest().lines)
    for change in changes:
        lines[ROW] = change(lines[ROW])
    judgement = judge(lines, declared(Emitting()), None)
    return compare(replace(honest(), lines=tuple(lines), judgement=judgement))


def test_a_case_tells_the_row_that_comes_nearest_to_its_bounds() -> None:
    found = compared(weights(deviation=lambda w: 0.99 * w.bound, out_ratio=0.99))
    ulps, bound = (getattr(found.details, f"weight_sum_{name}ulps") for name in ("", "bound_"))
    assert (found.outcome, found.differing_tokens) == ("holds", 0)
    assert ulps == 0.99 * bound
    assert found.details.largest_out_ratio == 0.99
    # What no log-sum-exp was returned for is no sum, however far off it is.
    unsaid = compared(weights(recomputed=True, deviation=1e9))
    assert unsaid.details.weight_sum_ulps < ulps


def test_a_row_that_breaks_several_invariants_is_one_row_and_the_first_breaks_are_listed() -> None:
    found = compared(line(position=1), seen(length=1, keys=1), weights(out_ratio=2.0, flat=(0,)))
    assert (found.outcome, found.differing_tokens) == ("differs", 1)
    broken = [each.invariant for each in found.details.broken]
    assert broken == [TOLD, FULL, WINDOW, FIRST, MEAN, SCORES]
    assert found.reason.startswith(f"step {honest().lines[ROW].step}, ")


def test_a_trace_that_holds_of_a_path_that_did_not_decode_is_void() -> None:
    idle = replace(honest().record, observed=Counter({"attention.prefill": 8}))
    found = compare(replace(honest(), record=idle))
    assert (found.outcome, found.tokens) == ("void", 8)
    assert found.reason == "the path asks for single-query decode, but no decode was observed"
