"""One thing wrong in what a session or a generate() loop gives, and what is said of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from toy import GeneratingToy, Toy, ToySession
from toy_cache import VOCAB

from kvparity.core import doing
from kvparity.plan.paths import build
from kvparity.plan.schedule import Action, Layout, Member, Plan, Span, Step
from kvparity.plan.workload import Prompts
from kvparity.record.execute import Record, run
from kvparity.record.run_events import Watch, watching
from kvparity.subjects.base import Session, SubjectError
from kvparity_contracts.paths import PathName

PROMPTS = Prompts("w", ("w/0", "w/1"), ((5, 6, 7), (9,)), 4)
TOKENS = [[5, 6, 7, 80, 81, 82, 83], [9, 90, 91, 92, 93]]
INDEX = ((0, 2), (0, 3), (0, 4), (0, 5), (1, 0), (1, 1), (1, 2), (1, 3))


class Odd(Tensor):
    """A tensor that could compare itself."""


def plan(path: str) -> Plan:
    return build(PathName.parse(path), PROMPTS, seed=0)


class Yields(Toy):
    """A session that gives rows as ``change`` makes them of the toy's, all in one block."""

    def __init__(self, change: Callable[[Tensor], list[Tensor]], **values: Any) -> None:
        super().__init__(block=99)
        self.change, self.made = change, values.get("made", lambda x: x)
        self.vocab = values.get("vocab", VOCAB)

    def session(self, members: Sequence[Member], layout: Layout) -> ToySession:
        subject = self

        class Changed(ToySession):
            def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
                for block in super().forward(step, ids):
                    yield from subject.change(block)

        return Changed(self, members, layout)

    def values(self, rows: Tensor, targets: Tensor, temperatures: Sequence[float]) -> Tensor:
        if not self.vocab:
            found: Tensor = self.made(rows.float())
            return found
        made: Tensor = self.made(super().values(rows, targets, temperatures))
        return made


def taken(subject: Toy, path: str = "prefill", tokens: Any = None, **more: Any) -> Record:
    own = [list(each) for each in tokens or TOKENS]
    return run(subject, plan(path), own, temperatures=(1.0, 0.7), **more)


WRONG_ROWS: dict[str, tuple[Callable[[Tensor], list[Tensor]], str]] = {
    "one too many": (lambda x: [x, x[:1]], "gave more than the 4 rows wanted"),
    "one too many in a block": (lambda x: [torch.cat([x, x[:1]])], "more than the 4 rows wanted"),
    "one too few": (lambda x: [x[:-1]], "gave 3 rows of the 4 wanted"),
    "none": (lambda x: [], "gave 0 rows of the 4 wanted"),
    "an empty block only": (lambda x: [x[:0]], "gave 0 rows of the 4 wanted"),
    "an empty block that is too narrow": (lambda x: [x[:0, :9], x], r"rows of shape \[0, 9\]"),
    "one column fewer": (lambda x: [x[:, :-1]], r"rows of shape \[4, 255\].*\[rows, 256\]"),
    "one dimension more": (lambda x: [x[:, :, None]], r"rows of shape \[4, 256, 1\]"),
    "one dimension fewer": (lambda x: [x[0]], r"rows of shape \[256\]"),
    "whole numbers": (lambda x: [x.long()], "in torch.int64"),
    "functions of their own": (lambda x: [x.as_subclass(Odd)], "as a Odd, a tensor with functions"),
}


@pytest.mark.parametrize("name", WRONG_ROWS)
def test_rows_that_are_not_those_wanted_are_told(name: str) -> None:
    change, words = WRONG_ROWS[name]
    with pytest.raises(SubjectError, match=words):
        taken(Yields(change))


def test_empty_blocks_between_rows_are_nothing() -> None:
    found = taken(Yields(lambda x: [x[:0], x[:1], x[:0], x[1:]]))
    wanted = taken(Toy())
    assert found.index == wanted.index == INDEX
    assert torch.equal(found.digests, wanted.digests)
    assert torch.equal(found.values, wanted.values)


WRONG_VALUES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "functions of their own": (
        lambda x: x.as_subclass(Odd),
        "as a Odd, expected .4, 2. in float32",
    ),
    "one too few": (lambda x: x[:-1], r"values of shape \[3, 2\]"),
    "one column fewer": (lambda x: x[:, :1], r"values of shape \[4, 1\]"),
    "float64": (lambda x: x.double(), "in torch.float64"),
    "float16": (lambda x: x.half(), "in torch.float16"),
}


@pytest.mark.parametrize("name", WRONG_VALUES)
def test_values_that_are_not_those_wanted_are_told(name: str) -> None:
    made, words = WRONG_VALUES[name]
    with pytest.raises(SubjectError, match=words):
        taken(Yields(lambda x: [x], made=made))


def test_rows_of_a_pair_are_their_own_values_and_all_as_wide() -> None:
    """Without a vocabulary nothing is drawn, and the first block says how wide rows are."""
    found = taken(Yields(lambda x: [x[:2, :9], x[2:, :9]], vocab=0))
    assert found.values.shape == (8, 9)
    assert found.targets.tolist() == [0] * 8
    with pytest.raises(SubjectError, match=r"rows of shape \[2, 8\] .*expected \[rows, 9\]"):
        taken(Yields(lambda x: [x[:2, :9], x[2:, :8]], vocab=0))
    with pytest.raises(SubjectError, match=r"values of shape \[4, 8\] .*expected \[4, 9\]"):
        taken(Yields(lambda x: [x[:, :9]], vocab=0, made=lambda x: x[:, :8]))


FINITE: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "a row with NaN": (lambda x: x.index_fill(1, torch.tensor([7]), torch.nan), False),
    "a row with a masked column": (lambda x: x.index_fill(1, torch.tensor([7]), -torch.inf), True),
}


@pytest.mark.parametrize("name", FINITE)
def test_a_row_may_hold_inf_and_no_nan(name: str) -> None:
    change, finite = FINITE[name]
    made: Callable[[Tensor], Tensor] = lambda x: x.nan_to_num(0.5)  # noqa: E731 - in a table
    found = taken(Yields(lambda x: [torch.cat([x[:-1], change(x[-1:])])], made=made))
    assert found.finite.tolist() == [True] * 3 + [finite] + [True] * 3 + [finite]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_value_may_be_neither(value: float) -> None:
    def made(x: Tensor) -> Tensor:
        return torch.cat([x[:-1], torch.tensor([[x[-1, 0], value]])])

    found = taken(Yields(lambda x: [x], made=made))
    assert found.finite.tolist() == [True, True, True, False] * 2


def test_the_token_behind_the_last_row_must_be_known() -> None:
    short = [TOKENS[0][:6], TOKENS[1]]
    with pytest.raises(SubjectError, match="position 5 of sequence 0 came too early: only 6"):
        taken(Toy(), "decode", short)
    drawn = [list(TOKENS[0][:6]), list(TOKENS[1])]
    run(Toy(), plan("decode"), drawn, temperatures=(1.0,), choose=lambda *_: 83)
    assert drawn == TOKENS


class Loop(GeneratingToy):
    """Its loop takes one token at another position, or with another row."""

    def __init__(self, position: int = 0, row: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.position, self.row = position, row

    def generate(self, member: Member, prompt: Sequence[int], choose: Any) -> Counter[str]:
        def other(position: int, row: Tensor) -> int:
            found: int = choose(position + self.position, self.row(row))
            return found

        return super().generate(member, prompt, other)


LOOPS: dict[str, tuple[Loop, str]] = {
    "a position later": (Loop(1), "position 3 of sequence 0 came too early"),
    "a row of whole numbers": (Loop(row=lambda x: x.long()), "in torch.int64"),
    "a row of half the width": (Loop(row=lambda x: x[:128]), r"rows of shape \[1, 128\]"),
    "two rows": (Loop(row=lambda x: torch.cat([x, x])), r"rows of shape \[1, 512\]"),
}


@pytest.mark.parametrize("name", LOOPS)
def test_what_a_loop_takes_wrongly_is_told(name: str) -> None:
    subject, words = LOOPS[name]
    tokens = [list(p) for p in PROMPTS.prompts]
    with pytest.raises(SubjectError, match=words):
        run(subject, plan("generate"), tokens, temperatures=(1.0,), choose=lambda *_: 1)


def test_a_loop_takes_each_token_once_for_each_member() -> None:
    found = taken(GeneratingToy(), "generate")
    assert found.index == INDEX
    assert found.observed == {"attention.prefill": 2, "attention.decode": 6}
    with pytest.raises(SubjectError, match=r"took 3 tokens for w/0, expected 4"):
        taken(GeneratingToy("stops-early"), "generate")


def test_before_a_reset_the_same_tokens_are_computed_where_no_others_are_given() -> None:
    own = plan("reset")
    assert 0 < own.warm_up < len(own.schedule)
    assert torch.equal(taken(Toy(), "reset").digests, taken(Toy(), "decode").digests)


def test_a_plan_without_rows_has_none() -> None:
    good = plan("prefill")
    found = run(Toy(), replace(good, schedule=()), [[], []], temperatures=(1.0,))
    assert (found.index, found.values.shape, found.values.dtype) == ((), (0, 1), torch.float32)


class Noting(Watch):
    """Writes down what it is told of."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def opened(self, session: Session) -> None:
        assert session.observed() == Counter()
        self.seen.append("opened")

    def acted(self, action: Action) -> None:
        self.seen.append((action.kind, action.step))

    def stepped(self, session: Session, step: Step, ids: Sequence[Sequence[int]]) -> None:
        assert [len(part) for part in ids] == [span.stop - span.start for span in step]
        self.seen.append([list(part) for part in ids])

    def ended(self, session: Session) -> None:
        self.seen.append("ended")


def test_who_watches_is_told_of_the_beginning_each_action_each_step_and_the_end() -> None:
    watch = Noting()
    with watching(watch):
        taken(Toy(), "reset")
    own = plan("reset")
    (action,) = own.actions
    at = 1 + action.step
    assert watch.seen[0] == "opened"
    assert watch.seen[at] == ("reset", action.step)
    assert watch.seen[-1] == "ended"
    assert len(watch.seen) == len(own.schedule) + 3
    flat = [ids for step in watch.seen[at + 1 : -1] for part in step for ids in part]
    assert flat == [token for own in TOKENS for token in own[:-1]]


def test_a_step_that_prefills_as_well_is_called_prefill() -> None:
    """For whoever waits for it, or finds the process dead in it."""
    seen: list[str] = []

    class Telling(Toy):
        def embed(self, ids: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            seen.append(doing.now().function)
            return super().embed(ids, positions)

    members = (Member("w/0", 7, 3), Member("w/1", 5, 1))
    steps = (
        (Span(0, 0, 3, 2),),
        (Span(0, 3, 4, 3, decode=True), Span(1, 0, 1, 0)),
        (Span(0, 4, 5, 4, decode=True), Span(1, 1, 2, 1, decode=True)),
    )
    tokens = [list(own) for own in TOKENS]
    run(Telling(), Plan(members, steps, Layout()), tokens, temperatures=(1.0,))
    assert seen == ["prefill", "prefill", "prefill", "decode", "decode"]
