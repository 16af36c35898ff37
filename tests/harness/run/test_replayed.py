"""How a replay goes about it: what is computed again, on which tokens, and after what."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import run_documents
import toy
from toy import Toy

from kvparity.plan.cases import make
from kvparity.plan.results import Divergence
from kvparity.relations.bits_and_limits import Comparison
from kvparity.report.case_line import case_line
from kvparity.report.run_dir import RunFolderError
from kvparity.run import reopen as reopening
from kvparity.run import replay as replaying
from kvparity.run.replay import Replay, replay
from kvparity.run.unit import run_unit

CONTRACT = toy.contract(
    workloads=[
        {"name": "first", "prompts": [[5, 6, 7]], "generate": 3},
        {"name": "second", "prompts": [[9]], "generate": 3},
    ],
    numerics={"execution": ["float32", "bfloat16"], "temperatures": [1.0]},
    checks=[
        {"name": "bits", "relation": "invariance", "paths": ["decode", "chunked(2)", "mixed"]},
        {"name": "added", "relation": "order", "keys": [65]},
    ],
)
WORK = make(CONTRACT)
LAST = WORK.units[-1]
CASE = LAST.cases[-1]
HELD = Comparison("holds", "every bit is equal", tokens=3, max_ulp=0)
PARTED = Comparison(
    "differs", "bits differ", tokens=3, differing_tokens=1,
    first_divergence=Divergence(**run_documents.DIVERGENCE),
)  # fmt: skip
OTHERS = replace(PARTED, differing_tokens=2)


class Again:
    """A run in a folder, and what is found when the last case of its last unit is rerun."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.then, self.now, self.after = folder, HELD, HELD, HELD
        self.ran: list[Any] = []
        self.settled = 0
        self.texts: Any = None
        self.loaded: Any = SimpleNamespace(contract=CONTRACT, path="c.yaml", sha256="ab")
        self.write("identity.json", {"path": "c.yaml", "contract": "ab", "schema_version": 2})
        lines = [
            {"unit": u.id, "sequences": [{"ids": [1, 2, 3, i]}]} for i, u in enumerate(WORK.units)
        ]
        self.write("units.jsonl", *lines, {"unit": "u9", "sequences": []})
        opening: dict[str, Any] = {
            "given": lambda loaded: SimpleNamespace(
                loaded=loaded, identity=lambda: {"texts": self.texts}
            ),
            "settle": self.settle,
            "subject_of": lambda job, numerics: Toy(),
        }
        for name, value in opening.items():
            monkeypatch.setattr(reopening, name, value)
        monkeypatch.setattr(replaying, "_again", self.again)
        monkeypatch.setattr(replaying, "run_unit", self.run_unit)

    def write(self, name: str, *values: Any) -> None:
        (self.folder / name).write_text("".join(json.dumps(value) + "\n" for value in values))

    def settle(self) -> None:
        self.settled += 1

    def again(self, setting: Any, runner: Any, case: Any) -> Any:
        self.ran.append((case.id, runner.known()))
        return self.now, {"columns": 3}

    def run_unit(self, setting: Any, unit: Any, *, tokens: Any, done: Any, emit: Any) -> None:
        assert (tokens, done) == (None, frozenset())
        self.ran.append(unit.id)
        for case in unit.cases:
            emit(case, self.after if case.id == CASE.id else HELD, None, None)

    def found(self, case: str = CASE.id) -> Replay:
        self.write("cases.jsonl", *(case_line(c, self.then if c.id == CASE.id else HELD).document()
                                    for u in WORK.units for c in u.cases))  # fmt: skip
        return replay(self.loaded, self.folder, case, "cpu")


@pytest.fixture
def again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Again:
    return Again(tmp_path, monkeypatch)


SAME_FORMAT = [u.id for u in WORK.units if u.numerics == LAST.numerics and u is not LAST]
FOUND: dict[str, tuple[tuple[Comparison, Comparison, Comparison], tuple[Any, ...], str]] = {
    # then, now, after the others: (same, after the others, as in the run, it moves), the verdict
    "as it was": ((HELD, HELD, PARTED), (True, None, None, False), "holds"),
    "as it differed": ((PARTED, PARTED, HELD), (True, None, None, False), "differs"),
    "only after the others": ((PARTED, HELD, PARTED), (False, "differs", True, True), "differs"),
    "otherwise after the others": (
        (PARTED, HELD, OTHERS), (False, "differs", False, True), "differs",
    ),
    "never again": ((PARTED, HELD, HELD), (False, "holds", False, False), "void"),
    "otherwise, and as in the run after the others": (
        (PARTED, OTHERS, PARTED), (False, "differs", True, True), "differs",
    ),
    "now however it is run": ((HELD, PARTED, PARTED), (False, "differs", False, False), "differs"),
    "now alone": ((HELD, PARTED, HELD), (False, "holds", True, True), "differs"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_a_case_is_rerun_alone_and_then_after_what_came_before_it(name: str, again: Again) -> None:
    (again.then, again.now, again.after), wanted, verdict = FOUND[name]
    found = again.found()
    assert (found.same, found.after_others, found.as_in_run, found.moves) == wanted
    assert (found.verdict, found.fresh, found.schema) == (verdict, None, 2)
    assert (found.entry, found.recorded) == (
        case_line(CASE, again.now), case_line(CASE, again.then).document(),
    )  # fmt: skip
    assert found.row == {"columns": 3}
    assert again.settled == 1
    alone = (CASE.id, [[1, 2, 3, len(WORK.units) - 1]])
    assert again.ran == [alone] + ([] if found.same else [*SAME_FORMAT, LAST.id])
    assert SAME_FORMAT


def test_what_fresh_processes_found_stands_beside_a_case_that_is_the_same(again: Again) -> None:
    case = {"id": CASE.id, "recheck": "differs", "reason": "path decode: other bits"}
    again.write("run.json", {"checks": [{"cases": [case]}]})
    found = again.found()
    assert (found.same, found.fresh, found.verdict) == (True, case["reason"], "differs")
    again.then = PARTED
    assert again.found().fresh == case["reason"]


def test_a_case_of_kernels_is_looked_at_and_no_token_is_needed(
    again: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = WORK.kernel_cases[-1]
    monkeypatch.setattr(replaying, "look", lambda job, case: case)
    now = {"id": case.id, "relation": "order", "verdict": "holds", "seconds": 2}
    line = SimpleNamespace(document=lambda: now)
    monkeypatch.setattr(replaying, "kernel_line", lambda case, found: line)
    (again.folder / "units.jsonl").unlink()
    for recorded, same in (({"seconds": 1}, True), ({"seconds": 1, "tree": "other"}, False)):
        again.write(
            "cases.jsonl", {"id": case.id, "relation": "order", "verdict": "holds"} | recorded
        )
        found = replay(again.loaded, again.folder, case.id, "cpu")
        assert (found.same, found.row, found.after_others) == (same, None, None)
    assert again.ran == []


def test_what_cannot_be_rerun_is_said(again: Again) -> None:
    with pytest.raises(RunFolderError, match=r"has no case 'c999'; it has c000, .*c007, \.\.\.$"):
        again.found("c999")
    again.write("cases.jsonl", {"id": "c999", "relation": "invariance", "verdict": "void"})
    with pytest.raises(RunFolderError, match="contract has no case c999: was it changed"):
        replay(again.loaded, again.folder, "c999", "cpu")
    again.write("units.jsonl", {"unit": "u9", "sequences": []})
    with pytest.raises(RunFolderError, match=f"{LAST.id}' of {CASE.id} was interrupted"):
        again.found()
    again.texts = "other ids"
    with pytest.raises(RunFolderError, match=r"texts of c\.yaml are different ids now"):
        again.found()
    assert (again.ran, again.settled) == ([], 0)


def test_a_verdict_of_a_run_of_the_first_schema_is_compared_without_what_was_signed_otherwise(
    again: Again,
) -> None:
    again.write("identity.json", {"path": "c.yaml", "contract": "ab"})
    turned = replace(HELD, approx_kl0=0.5, rollout="reference")
    again.now = turned
    assert again.found().same
    again.write("identity.json", {"path": "c.yaml", "contract": "ab", "schema_version": 2})
    assert not again.found().same


def test_a_unit_that_is_rerun_gives_the_entry_of_its_case() -> None:
    """With the toy itself, and none of these stand-ins."""
    own = toy.contract(
        workloads=[{"name": "w", "prompts": [[5, 6, 7]], "generate": 3}],
        checks=[{"name": "bits", "relation": "invariance", "paths": ["decode", "chunked(2)"]}],
    )
    (unit,) = make(own).units
    setting = replaying.Setting(own, Toy())
    loaded: Any = SimpleNamespace(contract=own)
    found = replaying._after_others(setting, loaded, unit, unit.cases[-1], [unit.id, "u9"])
    seen: list[Any] = []
    run_unit(setting, unit, tokens=None, done=frozenset(),
             emit=lambda *ended: seen.append(case_line(*ended[:2]).document()))  # fmt: skip
    assert found == next(line for line in seen if line["id"] == unit.cases[-1].id)
    assert found["verdict"] == "holds"


CUT: dict[str, tuple[str, Any, str]] = {
    "a case without a verdict": ("cases.jsonl", {"id": "c0", "relation": "cache"}, "verdict is"),
    "a case of another word": (
        "cases.jsonl", {"id": "c0", "relation": "cache", "verdict": "fine"}, "verdict is 'fine'",
    ),
    "a unit without tokens": ("units.jsonl", {"unit": "w"}, "sequences is missing"),
    "tokens in words": (
        "units.jsonl", {"unit": "w", "sequences": [{"ids": "ab"}]}, "sequences[0].ids is 'ab'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CUT)
def test_a_line_that_nobody_can_replay_is_one_sentence_with_its_place(
    name: str, again: Again
) -> None:
    file, line, words = CUT[name]
    again.found()
    whole = (again.folder / file).read_text()
    (again.folder / file).write_text(whole + json.dumps(line) + "\n")
    place = f"{again.folder / file}:{whole.count(chr(10)) + 1}: {words}"
    with pytest.raises(RunFolderError) as error:
        replay(again.loaded, again.folder, CASE.id, "cpu")
    assert str(error.value).startswith(place)


@pytest.mark.parametrize("ids", [[], [[1, 2, 3]], [[1, 2, 3, 4, 5]], [[1, 2, 3, 4]] * 2])
def test_sequences_that_were_not_planned_are_one_sentence(
    ids: list[list[int]], again: Again
) -> None:
    again.found()
    other = [{"ids": own} for own in ids]
    again.write("units.jsonl", *({"unit": u.id, "sequences": other} for u in WORK.units))
    place = f"{again.folder}/units.jsonl:{len(WORK.units)}: its sequences have"
    with pytest.raises(RunFolderError) as error:
        replay(again.loaded, again.folder, CASE.id, "cpu")
    assert str(error.value).startswith(place)
    assert "[4] are planned" in str(error.value)
