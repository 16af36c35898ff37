"""Rows that a fresh process computes again, and the state that it finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import engine_calls
import naive_pair
import pytest
import torch
import toy
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from toy import GeneratingToy, Toy

from kvparity.plan.cases import make
from kvparity.plan.paths import build
from kvparity.plan.schedule import check_schedule
from kvparity.plan.workload import fill
from kvparity.report.lines import FreshRows, UnitLine
from kvparity.run.recheck import work
from kvparity.run.recheck.choice import ROWS, chosen, needed, tokens_of
from kvparity.run.recheck.rows import unlike
from kvparity.run.unit import Setting, run_unit
from kvparity_contracts.paths import PathName

pytestmark = pytest.mark.usefixtures("every_path")
PATHS = [
    "prefill", "decode", "chunked(4)", "batched", "permuted", "mixed", "uniform", "paged(4)",
    "streamed(2)", "reset", "prefix(2)", "generate",
]  # fmt: skip
CHECKS = [{"name": "bits", "relation": "invariance", "paths": [*PATHS[1:-1], "generate"]}]


def contract() -> Any:
    return toy.contract(checks=CHECKS)


def unit(subject: Toy) -> tuple[Setting, Any, UnitLine]:
    setting = Setting(contract(), subject)
    first = make(setting.contract).units[0]
    ran = run_unit(setting, first, tokens=None, done=frozenset(), emit=lambda *_: None)
    return setting, first, ran


def rows_again(subject: Toy, ran: UnitLine, name: str, workload: str) -> dict[str, Any]:
    paths = [PathName.parse(path) for path in ran.rows]
    again = work.again(Setting(contract(), subject), name, workload, paths, ran.tokens)
    rows = json.loads(json.dumps(again))  # as it comes from another process
    return FreshRows.model_validate({"unit": name, "rows": rows}).rows


def test_a_subject_without_state_computes_the_same_rows_again() -> None:
    _, first, ran = unit(GeneratingToy())
    again = rows_again(GeneratingToy(), ran, first.id, first.workload)
    assert sorted(again) == sorted(PATHS)
    assert all(again.values())
    assert unlike(ran.rows, again) == {}


@pytest.mark.parametrize("path", PATHS)
def test_a_row_that_only_one_path_has_otherwise_is_named(path: str) -> None:
    _, first, ran = unit(GeneratingToy())
    again = rows_again(GeneratingToy(), ran, first.id, first.workload)
    *rows, (sequence, position, _, bits) = again[path]
    again[path] = (*rows, (sequence, position, "0x" + "0" * 16, bits))
    assert unlike(ran.rows, again) == {path: f"position {position} of sequence {sequence}"}


def test_a_logprob_alone_is_seen() -> None:
    _, first, ran = unit(GeneratingToy())
    again = rows_again(GeneratingToy(), ran, first.id, first.workload)
    (*row, (bits, _)), *rest = again["decode"]
    again["decode"] = ((*row, (bits, "0x00000000")), *rest)
    assert list(unlike(ran.rows, again)) == ["decode"]


def test_what_was_not_recorded_is_unlike() -> None:
    assert unlike({}, {"decode": [(0, 3, "0x0", ())]}) == {"decode": "position 3 of sequence 0"}


class Remembering(GeneratingToy):
    """Every row that was ever computed is looked up by its tokens, whichever path asks."""

    def __init__(self) -> None:
        super().__init__("batch-dependent")
        self.memo: dict[Any, Any] = {}

    def session(self, members: Any, layout: Any) -> Any:
        session = super().session(members, layout)
        forward, memo, seen = session.forward, self.memo, [[] for _ in members]

        def looked_up(step: Any, ids: Any) -> Any:
            places = []
            for span, own in zip(step, ids, strict=True):
                seen[span.sequence][span.start :] = own
                places += [tuple(seen[span.sequence][: p + 1]) for p in span.rows]
            done = 0
            for block in forward(step, ids):
                rows = block.clone()
                for number in range(len(rows)):
                    rows[number] = memo.setdefault(places[done + number], rows[number].clone())
                done += len(rows)
                yield rows

        session.forward = looked_up
        return session


def test_a_memo_that_both_sides_share_is_found() -> None:
    setting = Setting(contract(), Remembering())
    outcomes = []
    first = make(setting.contract).units[0]
    ran = run_unit(
        setting, first, tokens=None, done=frozenset(),
        emit=lambda case, result, *_: outcomes.append((str(case.path), result.outcome)),
    )  # fmt: skip
    assert dict(outcomes)["batched"] == "holds"  # the defect is hidden by what prefill left
    tokens = ran.tokens
    fresh = Setting(contract(), Remembering())
    again = work.again(fresh, first.id, first.workload, [PathName.parse("batched")], tokens)
    assert list(unlike(ran.rows, again)) == ["batched"]


@given(st.integers(0, 2**32), st.sampled_from(PATHS), st.integers(0, 1))
def test_the_needed_part_holds_the_rows_and_is_a_schedule(seed: int, path: str, which: int) -> None:
    workload = contract().workloads[which]
    prompts = fill(workload, seed=3, vocab=256)
    plan = build(PathName.parse(path), prompts, seed=3)
    places = chosen(plan, seed=seed, unit="u", path=path)
    assert 0 < len(places) <= ROWS
    assert len({sequence for sequence, _ in places}) == 1
    part = needed(plan, places)
    check_schedule(part.members, part.schedule, part.actions)
    assert 0 < tokens_of(part) <= tokens_of(plan)
    if not plan.generate:
        rows = {(s.sequence, p) for step in part.schedule for s in step for p in s.rows}
        assert set(places) <= rows
        assert set(part.schedule) <= set(plan.schedule)  # whole steps, as they were


def test_a_path_alone_is_cut_to_one_sequence_and_a_batch_is_not() -> None:
    prompts = fill(contract().workloads[0], seed=3, vocab=256)
    for path, most in (("decode", 1), ("batched", 99)):
        plan = build(PathName.parse(path), prompts, seed=3)
        part = needed(plan, chosen(plan, seed=1, unit="u", path=path))
        sequences = {span.sequence for step in part.schedule for span in step}
        assert (len(sequences) <= most) is True
        assert (len(sequences) > 1) is (path == "batched")


def packed(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Reads q and k as if they were no views: what it gives depends on how they lie."""

    def call(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Any:
        q, k = (x.as_strided(x.shape, torch.empty(x.shape).stride()) for x in (q, k))
        return kernel(q, k, v, **more)

    return call


def test_a_kernel_of_a_pair_is_given_the_same_views_again() -> None:
    """What depends on how inputs lie in memory is not taken for state."""
    paths = ["decode", "chunked(4)", "chunked(5)", "streamed(3)", "batched", "mixed", "permuted"]
    found = engine_calls.setting(paths, lengths=[3, 30, 9, 14])
    kernels = {"prefill": packed(naive_pair.prefill), "decode": packed(naive_pair.decode)}
    wrong = engine_calls.over(found, **kernels)
    first = make(wrong.contract).units[0]
    outcomes: list[str] = []
    ran = run_unit(
        wrong, first, tokens=None, done=frozenset(),
        emit=lambda _, result, *__: outcomes.append(result.outcome),
    )  # fmt: skip
    assert "differs" in outcomes
    tokens = ran.tokens
    names = [PathName.parse(path) for path in ran.rows]
    again = work.again(wrong, first.id, first.workload, names, tokens)
    assert set(again) == {"prefill", *paths}
    assert unlike(ran.rows, again) == {}
