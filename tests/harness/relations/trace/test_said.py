"""What each invariant finds of one row, and what a case and a picture make of a whole trace."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import toy
from emitting import Emitting
from test_judging import honest
from torch import Tensor
from toy import Toy

from kvparity.core import doing
from kvparity.relations.trace import invariants
from kvparity.relations.trace.case_line import BrokenInvariant
from kvparity.relations.trace.compare import compare
from kvparity.relations.trace.invariants import Finding
from kvparity.relations.trace.judging import Judgement, judge
from kvparity.relations.trace.lines import Line, Seen
from kvparity.relations.trace.tracing import Trace, declared
from kvparity.run import trace_command
from kvparity.run.trace_command import Traced


def first_layer(line: Line, **more: Any) -> tuple[Line, Seen]:
    seen = replace(line.layers[0], **more)
    return replace(line, layers=(seen,)), seen


def finding(name: str, **more: Any) -> Finding:
    """What an invariant of layers finds; ``weights``: changes of them, None: there are none."""
    line = honest().lines[5]
    if "weights" in more and more["weights"] is not None:
        weights = line.layers[0].weights
        assert weights is not None
        more["weights"] = replace(weights, **more["weights"])
    check = cast(Any, getattr(invariants, name))
    found: Finding = check(*first_layer(line, **more), declared(Emitting()))
    return found


UNSAID: dict[str, tuple[str, dict[str, Any], Finding]] = {
    "no key": ("keys_as_written", {"keys": 0, "strange": 0}, False),
    "keys as written": ("keys_as_written", {}, True),
    "no weights of a sum": ("weights_sum_to_one", {"weights": None}, False),
    "no sum": ("weights_sum_to_one", {"weights": {"recomputed": True}}, False),
    "a sum": ("weights_sum_to_one", {}, True),
    "no weights of a mean": ("out_is_the_mean", {"weights": None}, False),
    "a mean": ("out_is_the_mean", {}, True),
    "no weights": ("weights_follow_scores", {"weights": None}, False),
    "weights that could not tell": ("weights_follow_scores", {"weights": {"telling": 0}}, False),
    "weights that could": ("weights_follow_scores", {"weights": {"telling": 1}}, True),
    "the owner's": ("donor_is_owner", {}, True),
    "the owner's and another's": ("donor_is_owner", {"donors": (0, 1)}, False),
    "nobody's": ("donor_is_owner", {"donors": ()}, False),
    "a full cache": ("cache_is_full", {}, True),
    "the window": ("keys_are_the_window", {}, True),
    "the first key": ("first_key_follows", {}, True),
    "a result at its bound": ("out_is_the_mean", {"weights": {"out_ratio": 1.0}}, True),
    "a sum at its bound": (
        "weights_sum_to_one",
        {"weights": {"deviation": 3.0, "bound": 3.0}},
        True,
    ),
}


@pytest.mark.parametrize("name", UNSAID)
def test_an_invariant_says_no_more_than_it_can(name: str) -> None:
    check, change, wanted = UNSAID[name]
    assert finding(check, **change) is wanted


def test_sentences_name_what_is_off() -> None:
    assert "first at position 4" in str(finding("keys_as_written", strange=2, strange_at=4))
    assert "not a number" in str(finding("out_is_the_mean", weights={"out_ratio": math.inf}))
    assert "2 times what rounding" in str(finding("out_is_the_mean", weights={"out_ratio": 2.0}))
    uniform = finding("weights_follow_scores", weights={"uniform": (0, 1, 2, 3)})
    assert "(query heads 0, 1, 2, 3)," in str(uniform)
    assert "(query heads 0, 1, 2, 3, …):" in str(
        finding("weights_follow_scores", weights={"flat": (0, 1, 2, 3, 4)})
    )
    two = "of stored layer 1 and 2, expected 0"
    assert str(finding("donor_is_owner", donors=(1, 2))).endswith(two)
    before, line = honest().lines[2], honest().lines[4]
    assert invariants.positions_advance(line, None) is False
    gap = line.place - before.place
    stays = replace(line, told=before.told, position=before.position)
    assert f"by {'one' if gap == 1 else gap}: the position stays" in str(
        invariants.positions_advance(stays, before)
    )


def test_rows_are_counted_of_which_an_invariant_says_anything() -> None:
    lines = honest().lines
    said = judge(lines, declared(Emitting()), None).said
    rows, layers = len(lines), 3
    assert said["positions advance by one"] == rows - 2  # of two sequences one is the first
    assert said["the position told is the place"] == rows
    assert said["the cache holds position + 1 keys"] == layers * rows
    assert invariants.positions_advance(lines[2], lines[0]) is True
    broken = judge([replace(each, position=99) for each in lines], declared(Emitting()), None)
    assert broken.said["the position told is the place"] == rows
    bare = [replace(x, layers=tuple(replace(s, weights=None) for s in x.layers)) for x in lines]
    unsaid = judge(bare, declared(Emitting()), None).said
    assert [unsaid[name] for name in invariants.NAMES[-3:]] == [0, 0, 0]


def test_breaks_are_counted_from_the_second_on_and_eight_are_listed() -> None:
    facts = declared(Emitting())
    lines = [*honest().lines]
    lines[2] = replace(lines[2], layers=(replace(lines[2].layers[1], length=0),))
    one = judge(lines, facts, None)
    at = f"step {lines[2].step}, {lines[2].name} at position {lines[2].place}"
    assert one.reason == f"{at}, layer 1: {one.broken[0].sentence}"
    lines[4] = replace(lines[4], layers=(replace(lines[4].layers[1], length=0),))
    assert judge(lines, facts, None).reason == f"{one.reason} (2 breaks in all)"
    whole = judge([replace(lines[2], position=99)], facts, None)
    assert str(whole.broken[0]) == f"{at}: {whole.broken[0].sentence}"
    many = replace(one, broken=one.broken * 10)
    assert len(compare(replace(honest(), judgement=many)).details.broken) == 8


def test_stores_that_hold_the_same_are_void() -> None:
    lines = [*honest().lines]
    lines[-1] = replace(lines[-1], layers=(replace(lines[-1].layers[1], donors=(0, 1)),))
    found = judge(lines, declared(Emitting()), None)
    assert found.outcome == "void"
    assert found.reason.startswith("stored layers 0 and 1 hold the same keys and values of")


# a case of it


def test_a_trace_is_as_deep_as_its_deepest_row_and_as_near_as_its_nearest() -> None:
    """Of sums the one nearest to its own bound counts, though another is off by more."""
    trace = honest()
    lines = [*trace.lines]
    one, seen = first_layer(lines[0])
    assert seen.weights is not None
    wide = replace(seen.weights, deviation=50.0, bound=100.0, out_ratio=0.25)
    near = replace(seen.weights, deviation=9.0, bound=10.0, out_ratio=0.5)
    lines[0] = replace(one, layers=(replace(seen, weights=wide),))
    lines[1] = replace(lines[1], layers=(*lines[1].layers[:2], replace(seen, weights=near)))
    judgement = judge(lines, declared(Emitting()), None)
    found = compare(replace(trace, lines=tuple(lines), judgement=judgement))
    assert found.details.layers == 3
    assert (found.details.weight_sum_ulps, found.details.weight_sum_bound_ulps) == (9.0, 10.0)
    assert found.details.largest_out_ratio == 0.5
    shallow = [replace(each, layers=each.layers[:1]) for each in trace.lines[:2]]
    said = judge([*shallow, *trace.lines[2:]], declared(Emitting()), None)
    assert said.reason == f"all invariants hold in {len(trace.lines)} rows of 3 layers"


def test_a_trace_without_weights_or_of_numbers_beyond_json_is_still_told() -> None:
    trace = honest()
    bare = [
        replace(x, layers=tuple(replace(s, weights=None) for s in x.layers)) for x in trace.lines
    ]
    found = compare(replace(trace, lines=tuple(bare)))
    measures = ("weight_sum_ulps", "weight_sum_bound_ulps", "largest_out_ratio")
    assert [getattr(found.details, name) for name in measures] == [None] * 3
    one, seen = first_layer(trace.lines[0])
    assert seen.weights is not None
    odd = replace(seen.weights, deviation=math.inf, bound=1.0, out_ratio=math.inf, share=0.5)
    lines = (replace(one, layers=(replace(seen, weights=odd),)),)
    found = compare(replace(trace, lines=lines))
    assert [getattr(found.details, name) for name in measures] == ["inf", 1.0, "inf"]
    weights = lines[0].json()["layers"][0]["weights"]
    assert (weights["deviation"], weights["out_ratio"], weights["share"]) == ("inf", "inf", 0.5)
    assert (weights["uniform"], bare[0].json()["layers"][0]["weights"]) == ([], None)
    nothing = compare(replace(trace, lines=()))
    assert (nothing.tokens, nothing.details.layers) == (0, 0)


def test_a_break_counts_though_the_path_did_not_decode() -> None:
    broken = replace(honest().lines[0], position=99)
    judgement = judge([broken], declared(Emitting()), None)
    record = replace(honest().record, observed=type(honest().record.observed)())
    found = compare(replace(honest(), lines=(broken,), judgement=judgement, record=record))
    assert (found.outcome, found.reason) == ("differs", judgement.reason)


def test_a_picture_is_of_the_first_sequence_after_its_last_reset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(trace_command, "draw", lambda *given: drawn.append(given) or "svg")
    line = partial(Line, sequence=0, position=0, told=None)
    lines = (
        line(step=0, name="a", life=0, place=3), line(step=1, name="b", life=1, place=3),
        line(step=1, name="a", life=1, place=3), line(step=2, name="a", life=1, place=4),
    )  # fmt: skip
    broken = tuple(
        BrokenInvariant(
            invariant="x", step=at, sequence=name, place=place, layer=None, sentence="words"
        )
        for at, name, place in ((0, "a", 3), (1, "b", 3), (1, "a", 3), (2, "a", 5), (2, "a", 4))
    )
    judgement = Judgement("differs", "words", broken, {})
    trace = Trace("decode", lines, judgement, honest().record)
    traced = Traced({"name": "c"}, "w", cast(Any, None), trace, lines, {})
    assert traced.picture() == "svg"
    ((title, own, places),) = drawn
    assert (title, own, places) == ("c, decode over w: a", list(lines[2:]), [3, 4])
    replace(traced, lines=()).picture()
    assert drawn[-1] == ("c: no row was reported", ())
    for _ in range(2):  # over what is there
        traced.write(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "trace.svg").read_text() == "svg"
    rows = (tmp_path / "a" / "b" / "trace.jsonl").read_text().splitlines()
    assert [json.loads(row) for row in rows] == [json.loads(json.dumps(x.json())) for x in lines]


def test_a_subject_is_asked_for_its_shape_with_the_one_token_that_every_vocabulary_has() -> None:
    asked: list[Any] = []

    class Listening(Toy):
        def embed(self, ids: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            asked.append((ids.tolist(), positions.tolist()))
            return super().embed(ids, positions)

    assert declared(Listening(window=4)).window(0) == 4
    assert asked == [([0], [0])]


def test_one_sequence_of_a_trace_is_shown_and_all_are_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workloads = [{"name": "one", "prompt_tokens": [3, 5], "generate": 2, "pad": ["left"]}]
    own = toy.contract(workloads=workloads)
    loaded: Any = SimpleNamespace(contract=own, path="c.yaml", sha256="ab")
    monkeypatch.setattr(trace_command, "given", lambda loaded: SimpleNamespace(loaded=loaded))
    monkeypatch.setattr(trace_command, "subject_of", lambda job, numerics: Emitting())
    for name in ("settle", "still_settled"):
        monkeypatch.setattr(trace_command, name, lambda *_: None)
    place = SimpleNamespace(document=dict)
    monkeypatch.setattr(trace_command, "environment", lambda *_: place)
    every = trace_command.trace_contract(loaded, "cpu")
    assert {line.sequence for line in every.lines} == {0, 1}
    for number in (0, 1):
        found = trace_command.trace_contract(loaded, "cpu", workload="one", sequence=number)
        assert {line.sequence for line in found.lines} == {number}
        assert len(found.trace.lines) == len(every.lines)
        assert (found.verdict, found.workload) == ("holds", "one")
    for number in (-1, 2):
        with pytest.raises(ValueError, match=f"--sequence {number}: .* sequences 0 to 1"):
            trace_command.trace_contract(loaded, "cpu", sequence=number)
    assert doing.now().task == "trace of decode over one"
    with pytest.raises(
        ValueError, match="--path generate: what its layers look at cannot be reported"
    ):
        trace_command.trace_contract(loaded, "cpu", path="generate")
    with pytest.raises(ValueError, match="--workload other: the contract has one"):
        trace_command.trace_contract(loaded, "cpu", workload="other")
