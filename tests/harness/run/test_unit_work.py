"""What a unit runs, in which order, and what it tells before a case rests on it."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import toy
from torch import Tensor
from toy import Toy

from kvparity.core import doing
from kvparity.plan.cases import Case, make
from kvparity.plan.kernel_cases import KernelNumerics
from kvparity.plan.schedule import Member
from kvparity.record.cache_snapshot import CacheSnapshot
from kvparity.record.execute import Record
from kvparity.record.path_run import PathRun
from kvparity.relations.accuracy.measure import Against
from kvparity.relations.bits_and_limits import Comparison, InvarianceDetails
from kvparity.relations.invariance import with_cause
from kvparity.report.case_line import case_words
from kvparity.report.lines import PathLine, UnitLine
from kvparity.report.unit_paths import Before
from kvparity.run import unit
from kvparity.run.unit import Runner, Setting, require_paths, run_unit
from kvparity.subjects.base import UnsupportedError
from kvparity_contracts.paths import PathName

TOKENS = [[5, 6, 7, 80, 81, 82], [9, 90, 91, 92]]
WORKLOAD = {"name": "w", "prompts": [[5, 6, 7], [9]], "generate": 3}
BITS = {"name": "bits", "relation": "invariance", "paths": ["decode"]}
NEAR = {"name": "near", "relation": "accuracy", "limits": {"max_abs_dlogp": 1e-5}}
LIVE = {"name": "live", "relation": "liveness", "paths": ["decode"]}
HELD = {"name": "held", "relation": "cache", "paths": ["decode"]}


def setting(*checks: dict[str, Any], subject: Toy | None = None, **more: Any) -> Setting:
    numerics = {"execution": "float32", "temperatures": [1.0]}
    whole = {"workloads": [WORKLOAD], "checks": [*checks], "numerics": numerics}
    return Setting(toy.contract(**whole | more), subject or Toy())


class Events(list[Any]):
    """What a unit tells, in order: paths as they ran, and cases as they end."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[PathLine] = []
        self.kept: dict[str, Any] = {}

    def ran(self, line: PathLine) -> None:
        self.lines.append(line)
        self.append(line.key)

    def emit(self, case: Case, result: Any, reference: Any, candidate: Any) -> None:
        self.append((case.check, result.outcome))
        self.kept[case.check] = reference, candidate


def ran(
    own: Setting, *, drawn: bool = False, done: Sequence[str] = (), before: Before | None = None
) -> tuple[UnitLine, Events]:
    (work,) = make(own.contract).units
    events = Events()
    gone = frozenset(case.id for case in work.cases if case.check in done)
    found = run_unit(
        own, work, tokens=None if drawn else [[*ids] for ids in TOKENS], done=gone,
        emit=events.emit, before=before, ran=events.ran,
    )  # fmt: skip
    return found, events


def test_a_path_is_told_before_a_case_rests_on_it_and_once() -> None:
    found, events = ran(setting(BITS, NEAR, LIVE, HELD))
    # Caches come first: what is computed there serves the others.
    assert events[2:3] == [("held", "holds")]
    assert set(events[:2]) == {("prefill", False), ("decode", False)}
    assert events[3:] == [
        ("bits", "holds"), ("near", "holds"), ("decode", True), ("live", "holds"),
    ]  # fmt: skip
    assert all(bool(line.rows) != line.probed for line in events.lines)
    for name in ("observed", "launches", "rows"):
        assert set(getattr(found, name)) == {"prefill", "decode"}
    assert found.tokens == TOKENS
    assert [(each.id, each.prompt) for each in found.sequences] == [("w/0", 3), ("w/1", 1)]
    assert isinstance(events.kept["near"][0], Against)
    assert isinstance(events.kept["bits"][0], Record)
    assert [type(side) for side in events.kept["held"]] == [CacheSnapshot, CacheSnapshot]
    assert events.kept["live"][0] is None


def test_a_rollout_is_told_though_no_case_is_left_to_run() -> None:
    found, events = ran(setting(BITS), drawn=True, done=["bits"])
    assert events == [("decode", False)]
    assert list(found.observed) == ["decode"]
    assert [*map(len, found.tokens)] == [6, 4]


def test_what_ran_before_is_told_no_second_time_and_counts() -> None:
    whole, events = ran(setting(BITS, LIVE))
    left = Before(tuple(events.lines[:2]))
    found, again = ran(setting(BITS, LIVE), done=["bits"], before=left)
    assert again == [("decode", True), ("live", "holds")]
    for name in ("observed", "launches", "rows", "sequences"):
        assert getattr(found, name) == getattr(whole, name)


class Wrong(Toy):
    """Decode gives other logprobs."""

    def values(self, rows: Tensor, targets: Tensor, temperatures: Sequence[float]) -> Tensor:
        return super().values(rows, targets, temperatures) - int(len(rows) == 1)


def test_whether_a_path_repeats_itself_is_asked_once_of_a_unit() -> None:
    own = setting(BITS, subject=Wrong(block=9))
    (work,) = make(own.contract).units
    repeats = {"prefill": True, "decode": True}
    seen: list[Any] = []
    for before in (None, Before((), repeats)):
        run_unit(
            own, work, tokens=[[*ids] for ids in TOKENS], done=frozenset(), before=before,
            emit=lambda case, found, *_: seen.append((found.outcome, found.details)),
        )  # fmt: skip
    assert seen == [("differs", InvarianceDetails(repeats=repeats)), ("differs", None)]
    right = setting(BITS)
    run_unit(
        right, work, tokens=[[*ids] for ids in TOKENS], done=frozenset(),
        emit=lambda case, found, *_: seen.append((found.outcome, found.details)),
    )  # fmt: skip
    assert seen[2:] == [("holds", None)]


def test_what_the_subject_cannot_do_is_said_before_any_work() -> None:
    paged = BITS | {"paths": ["decode", "paged(4)"]}
    subject = Toy("no-pages")
    with pytest.raises(UnsupportedError, match=r"^path paged\(4\): the toy has no pages$"):
        ran(setting(paged, subject=subject), drawn=True)
    assert subject.calls == 0
    subject.max_positions = 6  # and so its neighbours are too long
    own = setting(BITS | {"paths": ["batched"]}, subject=subject)
    (work,) = make(own.contract).units
    with pytest.raises(UnsupportedError, match="a neighbour in its batch has"):
        require_paths(own, work, own.plans("w"))
    subject.unsupported = lambda plan: "not today"  # type: ignore[method-assign]
    with pytest.raises(UnsupportedError, match=r"^path batched: not today$"):
        require_paths(own, work, own.plans("w"))


@pytest.mark.parametrize(
    ("causes", "words"),
    [
        ({}, "bits differ"),
        ({"prefill": "no key"}, "bits differ: on path prefill no key"),
        ({"decode": "no key"}, "bits differ: on path decode no key"),
        ({"decode": "no key", "prefill": "a NaN key"}, "bits differ: on path prefill a NaN key"),
    ],
)
def test_the_cause_of_a_nan_is_told_of_the_path_that_has_it(
    causes: dict[str, str], words: str
) -> None:
    runner: Any = SimpleNamespace(nan_cause=lambda path: causes.get(str(path)))
    found = with_cause(
        runner, (PathName("prefill"), PathName("decode")), Comparison("differs", "bits differ")
    )
    assert (found.outcome, found.reason) == ("differs", words)


def test_a_case_that_could_not_be_measured_keeps_nothing() -> None:
    class Short(Toy):
        def oracle(self, member: Member, ids: Sequence[int], rows: Sequence[int]) -> Tensor:
            return super().oracle(member, ids, rows) * torch.nan

    _, events = ran(setting(NEAR, subject=Short()))
    assert events[-1] == ("near", "void")
    assert events.kept["near"][0] is None


def test_seconds_are_those_of_the_first_run_of_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 11.23456, 20.0, 20.50046, 30.0, 32.0])
    monkeypatch.setattr(unit, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    own = setting(BITS)
    runner = Runner(own, own.plans("w"), [[*ids] for ids in TOKENS])
    decode, prefill = PathName("decode"), PathName("prefill")
    first = runner.record(decode)
    assert runner.record(decode) is first
    assert runner.seconds == {"decode": 1.235}
    held = runner.take_snapshot(prefill)
    assert runner.take_snapshot(prefill) is held
    assert runner.record(prefill) is held.record
    assert runner.seconds == {"decode": 1.235, "prefill": 0.5}
    kept = runner.record(decode, keep=frozenset([(0, 3)]))
    assert (set(kept.kept), runner.seconds["decode"]) == ({(0, 3)}, 2.0)


def test_no_token_is_known_before_the_rollout() -> None:
    own = setting(BITS)
    runner = Runner(own, own.plans("w"), None)
    with pytest.raises(RuntimeError, match=r"rollout\(\) comes first"):
        runner.record(PathName("prefill"))
    runner.rollout(PathName("decode"))
    drawn = [list(ids) for ids in runner.known()]
    runner.rollout(PathName("prefill"))  # they are known now
    assert runner.known() == drawn
    assert list(runner.records) == [PathName("decode")]


def test_a_pair_draws_nothing_and_needs_no_path_for_it() -> None:
    class Pairish(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.vocab = 0

        def unsupported(self, plan: Any) -> str | None:
            decodes = any(span.decode for step in plan.schedule for span in step)
            return "it cannot decode" if decodes else None

    own = setting(NEAR, subject=Pairish())
    (work,) = make(own.contract).units
    plans = setting(NEAR).plans("w")
    require_paths(own, work, plans)
    with_words = Setting(own.contract, Pairish())
    with_words.subject.vocab = 256  # type: ignore[misc]
    with pytest.raises(UnsupportedError, match="path decode: it cannot decode"):
        require_paths(with_words, work, plans)
    runner = Runner(own, plans, None)
    runner.rollout(PathName("decode"))
    assert runner.known() == [[0] * 6, [0] * 4]


def test_who_waits_is_told_the_case_and_what_it_is_held_against(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = setting(BITS, NEAR)
    (work,) = make(own.contract).units
    bits, near = sorted(work.cases, key=lambda each: each.check)
    assert case_words(bits) == (
        f"case {bits.id}: invariance of decode against prefill over w in float32"
    )
    assert case_words(near).startswith(f"case {near.id}: accuracy of ")
    assert " against " not in case_words(near)
    seen: list[str] = []
    real = PathRun.run

    def noting(*given: Any, **more: Any) -> Any:
        seen.append(doing.now().task)
        return real(*given, **more)

    monkeypatch.setattr(PathRun, "run", noting)
    ran(own, drawn=True)
    assert seen[0] == f"rollout by {work.rollout} over w in float32"
    assert seen[1] == case_words(bits)
    assert work.numerics == KernelNumerics("float32", "float32")
