"""The search for the smallest case, where what fails is a rule of its numbers."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import toy

from kvparity.core.errors import RunFolderError
from kvparity.plan.cases import make
from kvparity.smallest.one_case import OneCase, of_case
from kvparity.smallest.reductions import singles
from kvparity.smallest.search import Search, TriedCase
from kvparity.smallest.tried import TriedFile
from kvparity_contracts.contract import Contract
from kvparity_contracts.steps import WrittenSteps

PAIR = {
    "kind": "attention",
    "prefill": "kvparity_kernels.attention:prefill",
    "decode": "kvparity_kernels.attention:decode",
    "heads": {"query": 8, "kv": 2, "dim": 64},
    "order": {"tile": 16, "split": 32},
    "window": 40,
}
Rule = Callable[[OneCase], bool]
SAME, OTHER, HOLDS = (TriedCase(each, "f", "", 1, 70) for each in ("same", "other", "holds"))  # type: ignore[arg-type] # outcomes


def start(path: str = "decode", **changes: Any) -> OneCase:
    contract = toy.contract(
        **{
            "subject": PAIR,
            "numerics": {"execution": "float32"},
            "workloads": [{"name": "w", "prompt_tokens": [5, 70, 33], "generate": 12}],
            "checks": [{"name": "bits", "relation": "invariance", "paths": [path]}],
        }
        | changes
    )
    unit = make(contract).units[0]
    return of_case(contract, unit.cases[0], Path(), unit.plans.steps(unit.cases[0].path))


def search(
    case: OneCase, rule: Rule, *, seconds: float = 60, known: dict[str, TriedCase] | None = None
) -> Search:
    def ask(small: OneCase) -> TriedCase:
        last = len(small.workload.lengths()) - 1
        return replace(SAME, sequence=min(1, last)) if rule(small) else HOLDS

    deadline = time.monotonic() + seconds
    begun = {case.key: SAME} | (known or {})
    return Search(ask, deadline, begun, lambda *_: None, case)


def heads(case: OneCase) -> tuple[int, int]:
    subject: Any = case.contract.subject
    return subject.heads.query, subject.heads.kv


RULES: dict[str, tuple[Rule, Rule]] = {
    "from 65 keys on": (lambda c: c.keys >= 65, lambda c: c.keys == 65 and heads(c) == (1, 1)),
    "between 33 and 50 keys": (lambda c: 33 <= c.keys <= 81, lambda c: c.keys == 33),
    "two sequences": (
        lambda c: len(c.workload.lengths()) >= 2,
        lambda c: len(c.workload.lengths()) == 2 and c.keys <= 2,
    ),
    "a group of four": (lambda c: heads(c)[0] // heads(c)[1] == 4, lambda c: heads(c) == (4, 1)),
    "three generated tokens": (
        lambda c: c.workload.generate >= 3,
        lambda c: c.workload.generate == 3 and c.workload.lengths() == (1,),
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_what_is_found_is_as_small_as_the_rule_allows(name: str) -> None:
    rule, smallest = RULES[name]
    found = search(start(), rule)
    assert found.run(lambda _: None)
    assert smallest(found.best)
    # 1-minimal: nothing that is smaller by one thing fails; something beside it passes.
    assert not any(rule(each.case) for each in singles(found.best))
    beside = next(found.neighbours())
    assert not rule(beside.case)
    if "keys" in name:
        assert beside.case.keys == found.best.keys - 1
    assert found.asked < 150


def test_with_fewer_heads_other_data_are_tried() -> None:
    """One head fails, too, but not with every seed."""
    found = search(start(), lambda c: heads(c) == (8, 2) or c.contract.seed == 5)
    assert found.run(lambda _: None)
    assert heads(found.best) == (1, 1)


def test_what_only_a_device_shows_passes_without_it() -> None:
    numerics = {"execution": "float32", "device": "sm_90"}
    found = search(start(numerics=numerics), lambda c: c.contract.numerics.device is not None)
    assert found.run(lambda _: None)
    assert [(it.what, it.after) for it in found.neighbours()] == [("device", "none")]
    anywhere = search(start(numerics=numerics), lambda c: True)
    assert anywhere.run(lambda _: None)
    assert anywhere.best.contract.numerics.device is None


def test_another_failure_is_not_followed() -> None:
    def ask(small: OneCase) -> TriedCase:
        last = len(small.workload.lengths()) - 1
        return replace(SAME if small.keys >= 50 else OTHER, sequence=min(1, last))

    case = start()
    found = Search(ask, time.monotonic() + 60, {case.key: SAME}, lambda *_: None, case)
    assert found.run(lambda _: None)
    assert found.best.keys == 50
    assert not list(found.neighbours())  # a case that fails in another way is none that passes


def test_a_budget_ends_the_search_and_what_is_known_goes_on() -> None:
    def rule(case: OneCase) -> bool:
        return case.keys >= 65

    whole = search(start(), rule)
    assert whole.run(lambda _: None)
    none = search(start(), rule, seconds=0)
    assert not none.run(lambda _: None)
    assert none.best == start()
    half = dict(list(whole.known.items())[: len(whole.known) // 2])
    again = search(start(), rule, known=half)
    assert again.run(lambda _: None)
    assert again.best == whole.best
    assert again.asked == whole.asked - len(half) + 1  # the start is known
    assert search(start(), rule, seconds=0, known=whole.known).run(lambda _: None)


def test_mixed_steps_are_taken_apart() -> None:
    """Only a step of two sequences, one of which decodes, makes it fail."""

    def rule(case: OneCase) -> bool:
        if case.path.kind != "steps":
            return case.path.kind == "drawn"
        steps = WrittenSteps.parse(case.path.steps).steps
        return any(len(step) > 1 and any(s.decode for s in step) for step in steps)

    case = next(each for n in range(1, 20) if rule(each := start(f"drawn({n})")))
    found = search(case, rule)
    assert found.run(lambda _: None)
    steps = WrittenSteps.parse(found.best.path.steps)
    assert steps.sequences == 2
    assert sum(map(len, steps.steps)) <= 4
    assert (steps.page, steps.since_reset) == (0, 0)


def test_lines_of_tried_cases_are_read_again(tmp_path: Path) -> None:
    path, about = tmp_path / "shrink" / "c000.jsonl", {"case": "k"}
    with TriedFile.open(path, dict(about)) as file:
        file.add("a", SAME)
        file.add("b", HOLDS)
    path.write_bytes(path.read_bytes() + b'\xff\n["c", {"outc')  # no text, and cut off
    with TriedFile.open(path, dict(about)) as file:
        assert file.known == {"a": SAME, "b": HOLDS}
        file.add("c", SAME)
    with TriedFile.open(path, dict(about)) as file:
        assert list(file.known) == ["a", "b", "c"]
    with TriedFile.open(path, {"case": "another"}) as file:  # other kernels: all is asked again
        assert file.known == {}


def test_what_is_known_outlives_a_reopening_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c000.jsonl"
    with TriedFile.open(path, {"case": "k"}) as file:
        file.add("a", SAME)
    before = path.read_bytes()

    def full(self: TriedFile, key: str, tried: TriedCase) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(TriedFile, "add", full)
        with pytest.raises(RunFolderError, match="cannot be used: No space left"):
            TriedFile.open(path, {"case": "k"})
    assert path.read_bytes() == before


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    with TriedFile.open(tmp_path / "c000.jsonl", {}) as file:
        kept = file._out
        file._out = Full()
        with pytest.raises(RunFolderError, match=r"c000.jsonl cannot be written: No space left"):
            file.add("a", SAME)
        file._out = kept


def test_a_case_keeps_its_own_file_names_and_numbers(tmp_path: Path) -> None:
    (tmp_path / "pair.py").write_text("")
    contract = Contract.model_validate(
        toy.document(
            subject=PAIR | {"prefill": "pair.py:prefill"},
            numerics={"execution": ["float32", "bfloat16"]},
            workloads=[{"name": "w", "prompt_tokens": [5], "generate": 3}],
            checks=[{"name": "bits", "relation": "invariance", "paths": ["decode", "mixed"]}],
        )
    )
    case = make(contract).units[1].cases[1]
    found = of_case(contract, case, tmp_path, "")
    assert found.contract.subject.prefill == f"{tmp_path / 'pair.py'}:prefill"  # type: ignore[union-attr] # a pair
    assert found.contract.numerics.execution == ("bfloat16",)
    assert [str(path) for path in found.check.paths] == ["mixed"]
    work = make(found.contract)
    assert [len(unit.cases) for unit in work.units] == [1]
