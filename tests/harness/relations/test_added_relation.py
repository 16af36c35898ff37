"""Two relations that live in this file alone: of paths, and of kernels. No room knows them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import toy
from pydantic import Field
from run_documents import rendered
from toy import Toy

from kvparity.controls.base import unchanged
from kvparity.controls.table import PLANTS
from kvparity.core.values import Count, Finite
from kvparity.plan.kernel_cases import KernelCase, KernelControl
from kvparity.plan.results import CaseLine, Details
from kvparity.relations import registry
from kvparity.relations.asked import Asked, Kernels, Planted, RelationAnswer
from kvparity.relations.base import KernelRelation, PathRelation, Relation
from kvparity.relations.bits_and_limits import Comparison, same_work
from kvparity.run import verify as running
from kvparity.run import worker
from kvparity.run.replay import replay
from kvparity_contracts.check_base import Compared, KernelCheck, KernelPoint
from kvparity_contracts.loader import load
from kvparity_contracts.problems import ContractError


class TotalCheck(Compared):
    """The logprobs of each sequence add up to the same on two paths."""

    TAG: ClassVar[str] = "total"
    CATCHES = ("temperature-ignored",)

    relation: Literal["total"]
    """total: sums of logprobs are compared."""
    within: float = Field(0.0, ge=0)
    """How far they may be apart."""


class TotalDetails(Details):
    """How far two sums are apart at most."""

    largest: Finite
    """of all sequences"""


class TotalCase(CaseLine):
    """Two paths of one subject: sums."""

    relation: Literal["total"]
    details: TotalDetails | None = Field(None, alias="total")


class TotalRelation(PathRelation):
    """Compares sums."""

    check = TotalCheck
    line = TotalCase
    holds = "totals agree"
    counted = "sequences"

    def compare(self, asked: Asked) -> RelationAnswer:
        """Sequence by sequence."""
        assert isinstance(asked.check, TotalCheck)
        other = asked.reference()
        candidate, reference = asked.candidate.record(), other.record()
        apart: dict[int, float] = {}
        for row, (sequence, _) in enumerate(candidate.index):
            gap = float(candidate.values[row, asked.column] - reference.values[row, asked.column])
            apart[sequence] = apart.get(sequence, 0.0) + gap
        off = [gap for gap in apart.values() if abs(gap) > asked.check.within]
        largest = max(map(abs, apart.values()))
        outcome, reason = ("differs", "totals differ") if off else ("holds", "totals are equal")
        idle = same_work(reference, candidate)
        if idle is not None and not off:
            outcome, reason = "void", idle
        found = Comparison(
            outcome, reason, tokens=len(apart), differing_tokens=len(off),  # type: ignore[arg-type]
            details=TotalDetails(largest=largest),
        )  # fmt: skip
        return RelationAnswer(found, candidate)

    def rows(self, cases: Sequence[CaseLine]) -> list[str]:
        """The largest gap."""
        return [f"    largest gap {max(case.details.largest for case in cases):g}"]


class StableCheck(KernelCheck):
    """Decode's kernel is looked at with so many keys."""

    TAG: ClassVar[str] = "stable"
    COMPARES = "a stable check looks at decode"
    CATCHES = ("other-tile",)

    relation: Literal["stable"]
    """stable: decode is looked at."""
    keys: tuple[Count, ...] = (40, 70)
    """Numbers of keys."""

    def points(self, execution: str) -> Iterator[KernelPoint]:
        """One for each number of keys."""
        yield from (KernelPoint(keys=keys) for keys in self.keys)


class StableRelation(KernelRelation):
    """Finds what the subject's kind says."""

    check = StableCheck
    holds = "decode is stable"
    finds, catches = "holds", True

    def place(self, case: CaseLine) -> str:
        """Which case."""
        return f"probe {case.id}"

    def words(self, case: KernelCase) -> str:
        """What is looked at."""
        return f"stability at {case.keys} keys"

    def look(self, kernels: Kernels, case: KernelCase) -> Comparison:
        """Nothing runs."""
        assert isinstance(kernels.subject(), Toy)
        off = int(self.finds == "differs")
        return Comparison(self.finds, f"{case.keys} keys", tokens=1, differing_tokens=off)  # type: ignore[arg-type]

    def control(self, kernels: Kernels, job: KernelControl) -> Planted:
        """As it is told."""
        return Planted(self.catches, f"differs: {job.control} at {job.case.keys} keys")


TOTAL = {"name": "sums", "relation": "total", "paths": ["decode", "batched"]}
STABLE = {"name": "calm", "relation": "stable"}
SHORT = {"name": "w", "prompts": [[5, 6, 7], [9]], "generate": 4}


@pytest.fixture
def relations() -> Iterator[tuple[TotalRelation, StableRelation]]:
    added: tuple[TotalRelation, StableRelation] = (TotalRelation(), StableRelation())
    for each in added:
        registry.register(each)
    yield added
    for each in added:
        registry.withdraw(each.name)


def written(folder: Path, *checks: dict[str, Any]) -> Path:
    file = folder / "contract.yaml"
    file.write_text(json.dumps(toy.document(checks=list(checks), workloads=[SHORT]), indent=1))
    return file


def verify(
    folder: Path, patch: pytest.MonkeyPatch, subject: Toy, *checks: dict[str, Any]
) -> dict[str, Any]:
    patch.setattr(worker, "factory", lambda kind: lambda model, **options: subject)
    patch.setattr(worker, "_subjects", {})
    return running.verify(
        load(written(folder, *checks)), device="cpu", folder=folder / "run", jobs=1, resume=False,
        command="", progress=lambda *_: None,
    ).document()  # fmt: skip


def test_added_relations_are_planned_run_controlled_and_told(
    relations: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = verify(tmp_path, monkeypatch, Toy(), TOTAL, STABLE)
    assert [(c["verdict"], c["reason"]) for c in report["checks"]] == [
        ("holds", "4 cases, totals agree; 1 control caught"),
        ("holds", "2 cases, decode is stable; 1 control caught"),
    ]
    assert {(c["name"], c["relation"]) for c in report["controls"]} == {
        ("temperature-ignored", "total"), ("other-tile", "stable"),
    }  # fmt: skip
    text = rendered(report)
    assert "    largest gap 0\n" in text
    assert "    probe c004, float32: 40 keys\n" in text
    first = report["checks"][0]["cases"][0]
    assert (first["relation"], first["total"]) == ("total", {"largest": 0.0})
    assert replay(load(tmp_path / "contract.yaml"), tmp_path / "run", first["id"], "cpu").same


@pytest.mark.parametrize(
    ("defect", "finds", "lost", "catches", "verdicts", "words"),
    [
        ("batch-dependent", "holds", False, True, ("differs", "holds"), "2 of 4 cases differ"),
        ("never-decodes", "differs", False, True, ("void", "differs"), "no decode was observed"),
        ("", "holds", True, True, ("void", "holds"), "planted and not caught: temperature-ignored"),
        ("", "holds", False, False, ("holds", "void"), "planted and not caught: other-tile"),
    ],
    ids=["a path differs", "kernels differ", "a control of paths is missed", "one of kernels"],
)
def test_they_are_red_where_something_differs_and_void_where_a_control_is_missed(
    relations: tuple[TotalRelation, StableRelation], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, defect: str, finds: str, lost: bool, catches: bool,
    verdicts: tuple[str, str], words: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(relations[1], "finds", finds)
    monkeypatch.setattr(relations[1], "catches", catches)
    if lost:
        monkeypatch.setitem(PLANTS, "temperature-ignored", unchanged)
    subject = Toy(defect) if defect else Toy()
    report = verify(tmp_path, monkeypatch, subject, TOTAL, STABLE)
    assert tuple(check["verdict"] for check in report["checks"]) == verdicts
    assert any(words in check["reason"] for check in report["checks"])


def test_without_a_control_of_its_own_a_relation_is_void(
    relations: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TotalCheck, "CATCHES", ())
    (check,) = verify(tmp_path, monkeypatch, Toy(), TOTAL)["checks"]
    assert check["verdict"] == "void"
    assert check["reason"] == "no control of relation total was planted"


LISTED = (
    "invariance, accuracy, cache, liveness, trace, order, audit, parity, tp-invariance, "
    "reproduction"
)


def test_a_name_that_is_not_registered_is_an_error_of_the_contract(tmp_path: Path) -> None:
    with pytest.raises(ContractError) as caught:
        load(written(tmp_path, TOTAL))
    assert f"checks[0].relation: found 'total', expected one of {LISTED}" in str(caught.value)


def test_a_registered_name_is_suggested_and_its_keys_are_known(
    relations: object, tmp_path: Path
) -> None:
    file = written(tmp_path, TOTAL | {"relation": "totl"}, STABLE, TOTAL | {"within": -1.0})
    with pytest.raises(ContractError) as caught:
        load(file)
    lines = file.read_text().splitlines()
    told = [(each.key, lines[each.line - 1][each.col - 1 :]) for each in caught.value.problems]
    assert told == [("checks[0].relation", '"totl",'), ("checks[2].within", "-1.0")]
    assert f"one of {LISTED}, total, stable (did you mean total?)" in str(caught.value)


def test_a_name_is_registered_once(relations: tuple[Relation, ...]) -> None:
    with pytest.raises(ValueError, match="'total' is registered already"):
        registry.register(relations[0])
