"""Every invariant holds on an honest subject, and a defect breaks it with its own sentence."""

from __future__ import annotations

import json

import pytest
import toy
from emitting import DEFECTS, Emitting

from kvparity.record.path_run import PathRun, Setting
from kvparity.relations.trace.invariants import NAMES
from kvparity.relations.trace.tracing import Trace, trace_side
from kvparity_contracts.paths import PathName

WORKLOADS = [{"name": "one", "prompt_tokens": [3, 9], "generate": 4, "pad": ["left"]}]
DECODE = PathName("decode")


def traced(*defects: str, path: PathName = DECODE) -> Trace:
    setting = Setting(toy.contract(workloads=WORKLOADS), Emitting(*defects))
    plans = setting.plans("one")
    prompts = plans.prompts
    tokens = [[(7 * i + n) % 128 for n in range(prompts.length(i))] for i in range(2)]
    return trace_side(PathRun(setting, setting.subject, plans, path, tokens))


@pytest.mark.parametrize(
    "path",
    ["prefill", "decode", "chunked(4)", "streamed(2)", "batched", "permuted", "mixed", "reset",
     "prefix(2)"],
)  # fmt: skip
def test_an_honest_subject_holds_on_every_path(path: str) -> None:
    trace = traced(path=PathName.parse(path))
    assert trace.judgement.outcome == "holds", trace.judgement.reason
    silent = {name for name, count in trace.judgement.said.items() if not count}
    assert not silent


def test_a_line_says_what_every_layer_saw() -> None:
    trace = traced()
    steps = [line for line in trace.lines if line.name == trace.lines[-1].name]
    assert [line.place for line in steps] == [8, 9, 10, 11]
    last = steps[-1]
    assert (last.position, last.told, last.life) == (11, 11, 0)
    assert [(s.length, s.keys, s.first, s.donors) for s in last.layers] == [
        (12, 6, 6, (0,)), (12, 12, 0, (1,)), (12, 12, 0, (1,))
    ]  # fmt: skip
    weights = last.layers[1].weights
    assert weights is not None
    assert not weights.recomputed
    assert weights.deviation <= weights.bound < 100
    assert weights.share is not None
    assert 0 < weights.share < 1
    assert 0 <= weights.largest_at < 12
    assert weights.telling == 4
    assert json.dumps(last.json(), allow_nan=False)


BREAKS = {
    "position-stays": ("positions advance by one", "the position goes from 2 to 0"),
    "told-ahead": ("the position told is the place", "was given position 3 at place 2"),
    "computed-elsewhere": ("the position told is the place", "position 3 was computed at place 2"),
    "length-short": ("the cache holds position + 1 keys", "holds 2 keys at place 2, expected 3"),
    "window-short": (
        "a row sees min(position + 1, window) keys",
        "was given 5 keys in a window of 6, expected 6",
    ),
    "first-late": ("the first key is position + 1 - keys", "is that of position 1, expected 0"),
    "wrong-donor": ("a layer reads its owner's cache", "of stored layer 0, expected 1"),
    "stale-slot": (
        "keys and values are as written",
        "1 of 5 keys and values are not those that were written, first at position 2",
    ),
    "narrow-store": ("keys and values are as written", "3 of 3 keys and values are not those"),
    "missing-key": ("weights sum to one", "that of other scores or other keys"),
    "uniform": ("weights follow the scores", "attention is uniform over 3 keys (query heads 0, 1"),
    "scale-lost": ("weights follow the scores", "their scores are alike, though the query's"),
    "wrong-out": ("the result is the weighted mean", "the result is off by 0.001"),
    "nan-key": ("the result is the weighted mean", "not a number"),
}


@pytest.mark.parametrize("defect", BREAKS)
def test_a_defect_breaks_its_invariant(defect: str) -> None:
    name, words = BREAKS[defect]
    trace = traced(defect)
    assert trace.judgement.outcome == "differs"
    assert words in next(b.sentence for b in trace.judgement.broken if b.invariant == name)


def test_every_invariant_has_a_defect_that_breaks_it() -> None:
    assert {name for name, _ in BREAKS.values()} == set(NAMES)
    assert set(BREAKS) | {"no-lse", "silent-layer", "twin-layers", "surplus"} == set(DEFECTS)


def test_a_counter_that_stays_0_fails_at_the_second_step_with_exactly_that_sentence() -> None:
    setting = Setting(
        toy.contract(
            workloads=[{"name": "one", "prompt_tokens": [1], "generate": 4, "pad": ["left"]}]
        ),
        Emitting("position-stays"),
    )
    plans = setting.plans("one")
    trace = trace_side(PathRun(setting, setting.subject, plans, DECODE, [[5, 6, 7, 8, 9]]))
    first = trace.judgement.broken[0]
    assert (first.invariant, first.step) == ("positions advance by one", 1)
    assert first.sentence == "positions advance by one: the position stays 0"
    assert [line.told for line in trace.lines] == [0, 0, 0, 0]


def test_a_scale_that_is_lost_breaks_nothing_but_that_weights_follow_the_scores() -> None:
    assert {b.invariant for b in traced("scale-lost").judgement.broken} == {
        "weights follow the scores"
    }


def test_a_defect_of_one_layer_is_told_of_that_layer_alone() -> None:
    broken = traced("wrong-donor").judgement.broken
    assert {b.layer for b in broken} == {2}
    # The kernel's own arithmetic is right: only whose keys they are is wrong.
    assert {b.invariant for b in broken} <= {
        "a layer reads its owner's cache", "keys and values are as written"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("defect", "words"),
    [
        ("silent-layer", "layer 2 reported no row at position 3"),
        ("twin-layers", "stored layers 0 and 1 hold the same keys and values"),
        ("surplus", "rows more than the schedule has"),
    ],
)
def test_a_trace_that_shows_nothing_is_void(defect: str, words: str) -> None:
    judgement = traced(defect).judgement
    assert judgement.outcome == "void"
    assert words in judgement.reason


def test_a_subject_that_tells_nothing_is_void() -> None:
    setting = toy.setting()
    plans = setting.plans("short")
    prompts = plans.prompts
    tokens = [[1] * prompts.length(i) for i in range(2)]
    judgement = trace_side(PathRun(setting, setting.subject, plans, DECODE, tokens)).judgement
    assert judgement.outcome == "void"
    assert "reported no row" in judgement.reason


def test_without_a_log_sum_exp_the_sum_is_not_judged_but_the_result_is() -> None:
    trace = traced("no-lse")
    assert trace.judgement.outcome == "holds"
    assert trace.judgement.said["weights sum to one"] == 0
    assert trace.judgement.said["the result is the weighted mean"] > 0
    weights = trace.lines[0].layers[0].weights
    assert weights is not None
    assert weights.recomputed
    assert weights.deviation < 1e-3
    assert traced("no-lse", "missing-key").judgement.outcome == "differs"
