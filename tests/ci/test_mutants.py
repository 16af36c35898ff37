"""The run of mutants: what is changed, what kills, and what does not count."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cosmic_ray.mutating import mutate_code
from mutation import (
    changes,
    covering,
    faults,
    fresh,
    jobs,
    listed,
    mutants,
    patching,
    report,
    scope,
)
from mutation.operators import OPERATORS

CI = Path(__file__).parents[2] / "ci"
DECIDES = '''"""A rule."""

LIMIT = 0.5


def over(value: int | None, limit: float = LIMIT) -> bool:
    if value is None:
        raise ValueError(f"no value, {1 + 1}")
    return any(each > limit for each in (value, -value))


def unseen(value: int) -> int:
    return value + 1
'''
TESTS = """
import time, pytest, decides

def test_rule(): assert decides.over(1) and not decides.over(0.5)
def test_reaches(): decides.over(1), decides.unseen(1)
def test_endless():
    while decides.unseen(1) != 2: time.sleep(0.01)
SEEN = []
def test_first(): SEEN.append(decides.unseen(1))
def test_alone(): assert not SEEN
def test_slow(): time.sleep(5)
@pytest.mark.parametrize("limit", [decides.LIMIT])
def test_named(limit): assert decides.over(limit + 1)
def test_dies():
    if decides.unseen(1) != 2: __import__("os")._exit(0)
@pytest.mark.parametrize("value", [0, 2])
def test_both(value): assert decides.over(value) == (value > 0)
def test_code(code=decides.unseen.__code__): assert decides.unseen.__code__ is code
"""


FAULTS = "".join(
    f"""
[[fault]]
name = "{name}"
file = "harness/decides.py"
find = '''    return any(each > limit for each in (value, -value))'''
replace = '''    value = min(value, 1)
    return any(each > limit + 1 for each in (value, -value))'''
green = "what is off by one and a half would be called right"
tests = []
"""
    for name in (11, 12)
)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one deciding file, its tests, and the programs."""
    for path, text in (("harness/decides.py", DECIDES), ("tests/test_decides.py", TESTS)):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_text(text)
    shutil.copytree(CI / "mutation", tmp_path / "ci/mutation")
    for module in (mutants, listed, fresh, changes, faults):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    mutants.source.cache_clear()
    return tmp_path


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
    path.write_text(DECIDES.replace("value, -value", "value, -value, 0"))
    mutants.source.cache_clear()
    after = {each.key for each in mutants.of("harness/decides.py")}
    assert {each.owner for each in before if each.key in after} == {"unseen"}
    path.write_text("\n\n" + DECIDES.replace("LIMIT = 0.5", "LIMIT = 0.5  # half"))
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
    live = patching.functions({path})[path]
    patching.patch(path, text.replace("return x + 1", "return x - 1"), 6, live)
    patching.patch(path, text.replace("x: x + 1", "x: -x"), 11, live)
    patching.patch(path, text.replace("return x + n", "return x - n"), 15, live)
    assert (module.cached(1), module.Class().method) == (0, [2, 1])
    assert (made(1), module.outer(1)(1)) == (0, 0)
    with pytest.raises(patching.PatchError, match="no live function has this line"):
        patching.patch(path, text.replace("1 + 1", "1 - 1"), 17, live)
    with pytest.raises(patching.PatchError, match="free vars"):
        patching.patch(path, text.replace("return x + n", "return x"), 15, live)


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
        (less, (test("slow"),), -3.8, ("unreached", "without a change, too: did not end")),
        (less, (test("dies"),), 0.1, ("killed", "the process died")),
        (less, (test("endless"),), -3.8, ("endless", "did not end")),
        (level, ALL, 0.1, ("unpatchable", f"{checkout}/harness/decides.py:3: no live function ")),
    ]
    (checkout / "ci/faults").mkdir()
    (checkout / "ci/faults/rules.toml").write_text(FAULTS)
    fault = mutants.Mutant("", "harness/decides.py", 9, "", mutants.FAULT, 0, True)
    cases.append((fault, ("tests/test_decides.py::test_both",), 0.1, ("killed", test("both[2]"))))
    cases.append((fault, (test("reaches"),), 0.1, ("survived", "")))
    given, results = checkout / "jobs", checkout / "results"
    jobs.write_jobs(
        (
            jobs.Job(replace(mutant, key=str(n)), tests, seconds)
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


def test_mutants_on_disk_are_killed_by_a_test_that_holds_without_them(
    checkout: Path, tree: fresh.Fresh
) -> None:
    level, more = changed("", "LIMIT = 5.0"), changed("unseen", "return value + 2")
    for each in (level, more):
        tree.job(jobs.Job(each, ALL, 0.1))
    found = jobs.read(checkout / "results")
    assert [found[each.key].status for each in (level, more)] == ["killed", "survived"]
    (copy,) = (checkout / "trees").glob("*/harness/decides.py")
    assert copy.read_text() == DECIDES
    tree.job(jobs.Job(level, ("tests/test_decides.py::test_named[0.5]",), 0.1))
    assert jobs.read(checkout / "results")[level.key].status == "survived"  # [5.0] is another test
    tree.job(jobs.Job(more, ("tests/test_decides.py::test_gone",), 0.1))
    assert jobs.read(checkout / "results")[more.key].status == "unreached"
    (copy.parents[1] / "tests/test_decides.py").write_text("def test_rule(): assert 0")
    tree.job(jobs.Job(level, ALL[1:], 0.1))
    assert jobs.read(checkout / "results")[level.key].status == "unreached"


def test_what_a_change_touched(checkout: Path) -> None:
    git = functools.partial(subprocess.run, cwd=checkout, check=True, capture_output=True)
    git(["git", "init", "-q"])
    git(["git", "add", "."])
    name = ["-c", "user.name=x", "-c", "user.email=x@x"]
    git(["git", *name, "commit", "-qm", "first"])
    assert changes.base(None) is None
    git(["git", *name, "commit", "-qm", "second", "--allow-empty"])
    base = changes.base(None)
    assert base is not None
    assert changes.files(base, ".") == []
    file = "harness/decides.py"
    (checkout / file).write_text(DECIDES.replace("    return value + 1", "    return 1 + value"))
    mutants.source.cache_clear()
    assert changes.files(base, ".") == [file]
    found = changes.touched(mutants.of(file), file, changes.lines(base, file))
    assert {each.owner for each in found} == {"unseen"}
    (checkout / file).write_text(DECIDES.replace("LIMIT = 0.5", "LIMIT = 0.25"))
    mutants.source.cache_clear()
    found = changes.touched(mutants.of(file), file, changes.lines(base, file))
    assert [each.change()[1] for each in found] == ["LIMIT = 2.5"]


@pytest.mark.usefixtures("checkout")
def test_the_report_counts_what_was_tried_and_lists_what_is_left(tmp_path: Path) -> None:
    every = mutants.of("harness/decides.py")
    status: list[jobs.Status] = ["killed", "endless", "survived", "unreached", "survived"]
    status.append("unpatchable")
    found = {
        each.key: jobs.Outcome(each.key, how) for each, how in zip(every, status, strict=False)
    }
    same = {listed.change(every[4]): "it is the same"}
    told = report.report(every, found, same)
    assert told.rows == {"harness/decides.py": report.Row(7, 5, 2, 1)}
    assert told.whole.rate == 0.5
    assert report.report([], found, same).whole == report.Row(0, 0, 0, 0)
    assert [each for each, _, _ in told.survivors] == [every[2], every[3]]
    assert report.survivor(*told.survivors[0]) == (
        f"harness/decides.py:{every[2].line}: unseen: no test fails\n"
        "    - return value + 1\n    + return value - 1\n"
    )
    kept = tmp_path / "mutants.json"
    kept.write_text(report.document(told, {}))
    assert listed.left(kept) == {listed.change(every[n]) for n in (2, 3, 5, 6)}
    assert listed.left(tmp_path / "none") == set()
    assert "| harness/decides.py | 7 | 5 | 2 | 1 | 50.0 % |" in report.markdown(told, {})


def test_the_map_is_read_as_it_was_written_and_can_be_measured_in_part(tmp_path: Path) -> None:
    tests = {"f": {"o": ("t/b.py::y", "t/a.py::x")}}
    seconds = {"t/a.py::x": 0.5, "t/b.py::y": 0.1}
    old = covering.Reached(seconds, tests, {"f": frozenset(["gone", "o"])})
    covering.write(old, tmp_path / "map")
    assert covering.read(tmp_path / "map") == old
    tests = {"f": {"o": ("t/a.py::z",), "p": ()}}
    early = {"f": frozenset(["p"]), "empty": frozenset[str]()}
    new = covering.Reached({"t/a.py::z": 0.2}, tests, early)
    both = covering.merged(old, new, ["t/a.py"])
    assert both.of("f", "o") == ("t/b.py::y", "t/a.py::z")
    kills = [("f", "o", "t/c.py::k"), ("f", "o", "t/a.py::z"), ("f", "o", "t/c.py::k")]
    killed = covering.remembering(both, kills)
    assert killed.of("f", "o") == ("t/c.py::k", "t/a.py::z", "t/b.py::y")
    assert (killed.of("f", "p"), killed.seconds["t/c.py::k"]) == (both.of("f", "p"), 0.1)
    assert both.imported == {"f": frozenset(["o", "p"]), "empty": frozenset()}
    assert both.within(both.of("f", "o"), 0.31) == ("t/b.py::y", "t/a.py::z")
    assert both.within(both.of("f", "o"), 0.29) == ("t/b.py::y",)
    assert both.within(both.of("f", "o"), 0.0) == ("t/b.py::y",)
    assert both.of("f", "another") == ("t/b.py::y", "t/a.py::z")


PLANTED = faults.faults()


def test_every_fault_has_its_place_and_its_tests(tmp_path: Path) -> None:
    assert len({fault.name for fault in PLANTED}) == len(PLANTED)
    for fault in PLANTED:
        (tmp_path / fault.file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / fault.file).write_text((scope.ROOT / fault.file).read_text())
        fault.plant(tmp_path)
        assert fault.green
        for test in fault.tests:
            path, _, name = test.partition("::")
            text = (scope.ROOT / path).read_text()
            assert not name or f"def {name.partition('[')[0]}(" in text, (fault.name, test)


def test_a_fault_without_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\nx = 1\n")
    for find, times in (("x = 1", 2), ("y", 0)):
        with pytest.raises(ValueError, match=f"fault f: its text stands {times} times in a.py"):
            faults.Fault("f", "a.py", find, "z", "it", ()).plant(tmp_path)


@pytest.mark.usefixtures("checkout")
def test_what_is_listed_stands_in_the_code_of_today() -> None:
    entry = listed.Change("harness/decides.py", "unseen", "return value + 1", "return value - 1")
    others = [replace(entry, before="return value + 2"), replace(entry, owner="over")]
    assert listed.stale([entry, *others]) == others


def test_no_entry_is_stale() -> None:
    assert listed.stale(listed.equivalent()) == []
    assert all(reason for reason in listed.equivalent().values())


def test_a_new_file_of_the_scope_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "harness/kvparity/judge.py" in scope.files()
    monkeypatch.setattr(scope, "_DECIDING", {scope.HARNESS: "judge gone"})
    with pytest.raises(FileNotFoundError, match=r"names harness/kvparity/gone.py: no file"):
        scope.files()
