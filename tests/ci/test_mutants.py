"""Mutants: what is changed, and which tests kill."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cosmic_ray.mutating import mutate_code
from mutation import copying, fresh, jobs, live, mutants, patching
from mutation.operators import OPERATORS


def changed(owner: str, after: str) -> mutants.Mutant:
    (found,) = (m for m in mutants.of("harness/decides.py") if m.change()[1] == after)
    assert found.owner == owner
    return found


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda each: type(each).__name__)
def test_operators_do_what_their_examples_say(operator: Any) -> None:
    assert operator.examples()
    for each in operator.examples():
        found = mutate_code(each.pre_mutation_code, type(operator)(), each.occurrence)
        assert found.split() == each.post_mutation_code.split()


@pytest.mark.usefixtures("checkout")
def test_rules_are_changed_and_words_and_types_are_not() -> None:
    found = [(each.owner, *each.change()) for each in mutants.of("harness/decides.py")]
    rule = "return any(each > limit for each in (value, -value))"
    assert found == [
        ("over", "if value is None:", "if value is not None:"),
        ("over", rule, rule.replace(">", ">=")),
        ("unseen", "return value + 1", "return value - 1"),
        ("over", rule, rule.replace("any", "all")),
        ("over", 'raise ValueError(f"no value, {1 + 1}")', "pass"),
        ("", "LIMIT = 0.5", "LIMIT = 5.0"),
        ("unseen", "return value + 1", "return value + 2"),
    ]


def test_a_mutant_keeps_its_name_while_its_function_does(checkout: Path) -> None:
    path, before = checkout / "harness/decides.py", mutants.of("harness/decides.py")
    text = path.read_text()
    path.write_text(text.replace("value, -value", "value, -value, 0"))
    mutants.source.cache_clear()
    after = {each.key for each in mutants.of("harness/decides.py")}
    assert {each.owner for each in before if each.key in after} == {"unseen"}
    path.write_text("\n\n" + text.replace("LIMIT = 0.5", "LIMIT = 0.5  # half"))
    mutants.source.cache_clear()
    after = {each.key for each in mutants.of("harness/decides.py")}
    assert {each.owner for each in before if each.key in after} == {"over", "unseen"}


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("patched", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_live_functions_take_the_changed_code(tmp_path: Path) -> None:
    path = tmp_path / "patched.py"
    text = """
import functools

@functools.cache
def cached(x):
    return x + 1

class Class:
    @property
    def method(self):
        return sorted([1, 2], key=lambda x: x + 1)

def outer(n):
    def inner(x):
        return x + n
    return inner
LEVEL = 1 + 1
"""
    path.write_text(text)
    module = loaded(path)
    made = module.outer(1)
    there = patching.functions({path})[path]
    patching.patch(path, text.replace("return x + 1", "return x - 1"), 6, there)
    patching.patch(path, text.replace("x: x + 1", "x: -x"), 11, there)
    patching.patch(path, text.replace("return x + n", "return x - n"), 15, there)
    assert (module.cached(1), module.Class().method) == (0, [2, 1])
    assert (made(1), module.outer(1)(1)) == (0, 0)
    with pytest.raises(patching.PatchError, match="no live function has this line"):
        patching.patch(path, text.replace("1 + 1", "1 - 1"), 17, there)
    with pytest.raises(patching.PatchError, match="free vars"):
        patching.patch(path, text.replace("return x + n", "return x"), 15, there)


ALL = tuple(f"tests/test_decides.py::test_{name}" for name in ("reaches", "rule"))


def test_live_mutants_are_killed_by_a_test_that_holds_without_them(checkout: Path) -> None:
    rule = "return any(each > limit for each in (value, -value))"
    bound, level = changed("over", rule.replace(">", ">=")), changed("", "LIMIT = 5.0")
    less, more = changed("unseen", "return value - 1"), changed("unseen", "return value + 2")
    test = "tests/test_decides.py::test_{}".format
    cases: list[tuple[mutants.Mutant, tuple[str, ...], float, tuple[jobs.Status, str]]] = [
        (bound, ALL, 0.1, ("killed", test("rule"))),
        (bound, ("tests/test_decides.py",), 0.1, ("killed", test("rule"))),
        (more, ALL, 0.1, ("survived", "")),
        (less, (test("code"), *ALL), 0.1, ("survived", "")),  # that one fails without it, too
        (less, (test("code"),), 0.1, ("unreached", "")),
        (less, (test("gone"),), 0.1, ("unreached", "")),
        (less, (test("first"), test("alone")), 0.1, ("survived", "")),  # so does that one then
        (less, (test("slow"),), -3.6, ("unreached", "without a change, too: did not end")),
        (less, (test("dies"),), 0.1, ("killed", "the process died")),
        (less, (test("endless"),), -3.6, ("endless", "did not end")),
        (level, ALL, 0.1, ("unpatchable", f"{checkout}/harness/decides.py:3: no live function ")),
    ]
    fault = mutants.Mutant("", "harness/decides.py", 9, "", mutants.FAULT, 0, True)
    cases.append((fault, ("tests/test_decides.py::test_both",), 0.1, ("killed", test("both[2]"))))
    cases.append((fault, (test("reaches"),), 0.1, ("survived", "")))
    given, results = checkout / "jobs", checkout / "results"
    jobs.write_jobs(
        (
            jobs.MutantJob(replace(mutant, key=str(n)), tests, seconds)
            for n, (mutant, tests, seconds, _) in enumerate(cases)
        ),
        given,
    )
    done = subprocess.run(
        [sys.executable, "-m", "mutation.live", given, results, "2", "inf"],
        env=os.environ | {"PYTHONPATH": str(checkout / "ci")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = jobs.read(results)
    for n, (_, tests, _, (status, by)) in enumerate(cases):
        assert found[str(n)].status == status, tests
        assert found[str(n)].by.startswith(by), tests


@pytest.fixture
def tree(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> fresh.Fresh:
    monkeypatch.setattr(fresh, "tree", lambda folder: Path(shutil.copytree(checkout, folder)))
    return fresh.Fresh(checkout / "trees", checkout / "results")


@pytest.mark.slow
def test_mutants_on_disk_are_killed_by_a_test_that_holds_without_them(
    checkout: Path, tree: fresh.Fresh
) -> None:
    level, more = changed("", "LIMIT = 5.0"), changed("unseen", "return value + 2")
    for each in (level, more):
        tree.job(jobs.MutantJob(each, ALL, 0.1))
    found = jobs.read(checkout / "results")
    assert [found[each.key].status for each in (level, more)] == ["killed", "survived"]
    (copy,) = (checkout / "trees").glob("*/harness/decides.py")
    assert copy.read_text() == (checkout / "harness/decides.py").read_text()
    tree.job(jobs.MutantJob(level, ("tests/test_decides.py::test_named[0.5]",), 0.1))
    assert jobs.read(checkout / "results")[level.key].status == "survived"  # [5.0] is another test
    tree.job(jobs.MutantJob(more, ("tests/test_decides.py::test_gone",), 0.1))
    assert jobs.read(checkout / "results")[more.key].status == "unreached"
    (copy.parents[1] / "tests/test_decides.py").write_text("def test_rule(): assert 0")
    tree.job(jobs.MutantJob(level, ALL[1:], 0.1))
    assert jobs.read(checkout / "results")[level.key].status == "unreached"


def test_a_build_that_does_not_import_is_no_fault_that_a_test_sees(
    checkout: Path, tree: fresh.Fresh
) -> None:
    fault = mutants.Mutant("does not import", "harness/decides.py", 3, "", mutants.FAULT, 0, True)
    tree.job(jobs.MutantJob(fault, ALL, 0.1))
    found = jobs.read(checkout / "results")[fault.key]
    assert (found.status, found.by) == ("survived", "its tests cannot be imported")


def test_what_the_end_of_the_time_cuts_has_no_outcome(checkout: Path, tree: fresh.Fresh) -> None:
    given, results = checkout / "jobs", checkout / "results"
    job = jobs.MutantJob(changed("unseen", "return value - 1"), ALL, 0.1)
    jobs.write_jobs([job], given)
    late = live.Live(given, results, 1, time.time() - 1)
    assert late._tried(job, "", ALL) == copying.ENDLESS
    late._job(job)
    tree.until = time.time() - 1
    assert tree._passes(checkout, ALL, 60.0) == copying.ENDLESS
    tree.job(job)
    assert not results.exists()


def test_an_outcome_stands_while_its_tests_do(checkout: Path, tree: fresh.Fresh) -> None:
    each, results = changed("", "LIMIT = 5.0"), checkout / "results"
    tree.job(jobs.MutantJob(each, ALL, 0.1))
    other = jobs.MutantOutcome("other", "killed", tests=jobs.digests(["ci/faults/rules.toml"]))
    jobs.add(other, results)
    assert jobs.standing(jobs.read(results)).keys() == {each.key, "other"}
    (checkout / "tests/test_decides.py").write_text(
        (checkout / "tests/test_decides.py").read_text().replace("over(0.5)", "over(0.4)")
    )
    assert jobs.standing(jobs.read(results)).keys() == {"other"}
    (checkout / "ci/faults/rules.toml").unlink()
    assert jobs.standing(jobs.read(results)) == {}


def test_a_copy_that_has_no_time_at_all_ends() -> None:
    for _ in range(20):
        began = time.monotonic()
        assert copying.asked(lambda: str(time.sleep(60)), 0.0) == copying.ENDLESS
        assert time.monotonic() - began < 50, "it was waited for"
