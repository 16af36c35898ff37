"""Mutants: which of them a change touched, what is said of them, and what is listed."""

from __future__ import annotations

import functools
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from mutation import (
    changes,
    command,
    covering,
    faults,
    jobs,
    listed,
    mutants,
    named,
    report,
    running,
    scope,
)

RULE = "harness/kvparity/report/verdict.py"


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
    text = (checkout / file).read_text()
    (checkout / file).write_text(text.replace("    return value + 1", "    return 1 + value"))
    mutants.source.cache_clear()
    assert changes.files(base, ".") == [file]
    found = changes.touched(mutants.of(file), file, changes.lines(base, file))
    assert {each.owner for each in found} == {"unseen"}
    (checkout / file).write_text(text.replace("LIMIT = 0.5", "LIMIT = 0.25"))
    mutants.source.cache_clear()
    found = changes.touched(mutants.of(file), file, changes.lines(base, file))
    assert [each.change()[1] for each in found] == ["LIMIT = 2.5"]
    (checkout / "harness/new.py").write_text("LIMIT = 1\n\nOTHER = 2\n")
    assert changes.files(base, "harness") == [file, "harness/new.py"]
    assert changes.lines(base, "harness/new.py") == {1, 2, 3}


@pytest.mark.usefixtures("checkout")
def test_the_report_counts_what_was_tried_and_lists_what_is_left(tmp_path: Path) -> None:
    every = mutants.of("harness/decides.py")
    status: list[jobs.Status] = ["killed", "endless", "survived", "unreached", "survived"]
    status.append("unpatchable")
    found = {
        each.key: jobs.MutantOutcome(each.key, how)
        for each, how in zip(every, status, strict=False)
    }
    same = {listed.change(every[4]): "it is the same"}
    told = report.report(every, found, same)
    assert told.rows == {"harness/decides.py": report.FileCounts(7, 5, 2, 1)}
    assert told.whole.rate == 0.5
    assert report.report([], found, same).whole == report.FileCounts(0, 0, 0, 0)
    assert [each for each, _, _ in told.survivors] == [every[2], every[3]]
    assert report.survivor(*told.survivors[0]) == (
        f"harness/decides.py:{every[2].line}: unseen: no test fails\n"
        "    - return value + 1\n    + return value - 1\n"
    )
    assert told.seen == {}
    found[every[0].key] = jobs.MutantOutcome(every[0].key, "killed", "t.py::t")
    entry = listed.change(every[0])
    assert report.report(every, found, {entry: "wrong"}).seen == {entry: "t.py::t"}
    twin = replace(every[0], key="twin")  # reads alike in another place of the function
    found["twin"] = jobs.MutantOutcome("twin", "survived")
    assert report.report([*every, twin], found, {entry: "one is"}).seen == {}
    kept = tmp_path / "mutants.json"
    kept.write_text(report.document(told, {}))
    assert listed.left(kept) == {listed.change(every[n]) for n in (2, 3, 5, 6)}
    assert listed.left(tmp_path / "none") == set()
    assert "| harness/decides.py | 7 | 5 | 2 | 1 | 50.0 % |" in report.markdown(told, {})


@pytest.mark.parametrize("way", ["--all", "--changed"])
@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        ("killed", 0, "7 of 7 run: 7 killed"),
        ("survived", 1, "7 survive"),
        (None, 1, "none of 7 was run"),
        ("unpatchable", 1, "none of 7 was run"),
    ],
)
def test_the_exit_code_says_whether_all_were_killed(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    way: str, status: jobs.Status | None, code: int, told: str,
) -> None:  # fmt: skip
    file = "harness/decides.py"

    def run(todo: list[mutants.Mutant], results: Path, *_: object) -> None:
        for each in todo if status else ():
            jobs.add(jobs.MutantOutcome(each.key, status), results)

    monkeypatch.setattr(command, "STATE", checkout / "state")
    monkeypatch.setattr(command, "run", run)
    monkeypatch.setattr(command, "files", lambda: [file])
    monkeypatch.setattr(changes, "base", lambda since: "a commit")
    monkeypatch.setattr(changes, "files", lambda base, folder: [file] if folder == "." else [])
    monkeypatch.setattr(changes, "lines", lambda base, file: set(range(100)))
    monkeypatch.setattr("sys.argv", ["ci/mutants", way])
    assert command.main() == code
    assert told in capsys.readouterr().out


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
    some = covering.Reached({"t/a.py::z": 0.3, "t/a.py::b": 0.4}, {"f": {"p": ("t/a.py::b",)}}, {})
    again = covering.merged(killed, some, ["t/a.py"])
    assert list(again.seconds) == ["t/b.py::y", "t/a.py::z", "t/c.py::k", "t/a.py::b"], "in place"
    assert again.seconds["t/a.py::z"] == 0.3
    table = covering.Reached({"t.py::a[1]": 1.0, "t.py::a[2]": 2.0, "t.py::ab": 9.0}, {}, {})
    assert table.whole(("t.py::a[2]", "t.py::ab", "t.py::a[1]")) == ("t.py::a", "t.py::ab")
    assert [table.seconds_of(test) for test in ("t.py::a", "t.py::a[2]", "t.py::ab")] == [3, 2, 9]
    assert table.within(("t.py::a", "t.py::ab"), 5.0) == ("t.py::a",)
    reach = [old.may_reach(test, file) for test in ("t/a.py", "t/new.py") for file in ("f", "g")]
    assert reach == [True, False, True, True]


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
            faults.ListedFault("f", "a.py", find, "z", "it", ()).plant(tmp_path)


@pytest.mark.usefixtures("checkout")
def test_what_is_listed_stands_in_the_code_of_today() -> None:
    entry = listed.SourceChange(
        "harness/decides.py", "unseen", "return value + 1", "return value - 1"
    )
    others = [replace(entry, before="return value + 2"), replace(entry, owner="over")]
    assert listed.stale([entry, *others]) == others


def test_no_entry_is_stale() -> None:
    assert listed.stale(listed.equivalent()) == []
    assert all(reason for reason in listed.equivalent().values())


def test_a_new_file_of_the_scope_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "harness/kvparity/report/verdict.py" in scope.files()
    monkeypatch.setattr(scope, "_DECIDING", {scope.HARNESS: "report/verdict gone"})
    with pytest.raises(FileNotFoundError, match=r"names harness/kvparity/gone.py: no file"):
        scope.files()


def test_a_fault_planted_with_others_is_seen_by_its_own_tests_alone() -> None:
    def fault(name: str, *tests: str) -> faults.ListedFault:
        return faults.ListedFault(name, "a.py", "x", "y", "it", tests)

    seen = [fault("a", "t.py::one[1]"), fault("b", "t.py::one"), fault("c", "t.py")]
    missed = [fault("d", "t.py::one[2]"), fault("e", "t.py::two"), fault("f")]
    assert named.unseen([*seen, *missed], ["t.py::one[1]", "u.py::x"]) == missed


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--changed", "no-such"], "no-such is no commit of this checkout"),
        (["--faults", "no-such"], "no fault of ci/faults is named no-such"),
        (["--planted", "no-such"], "no fault of ci/faults is named no-such"),
        (["--map", "tests/no_such.py"], "tests/no_such.py: no such file"),
        (["--all", "--only", "no_such.py"], "no_such.py: not a file that ci/mutation/scope.py"),
        (["--all", "--only", RULE], "results.jsonl: line 2 is no outcome; --anew forgets them all"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_exit_code_2(
    given: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "results.jsonl").write_text('{"key": "a", "status": "killed"}\n{"key": "b"\n')
    monkeypatch.setattr(command, "STATE", tmp_path)
    monkeypatch.setattr("sys.argv", ["ci/mutants", *given])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_a_map_that_is_gone_or_broken_is_one_sentence(tmp_path: Path) -> None:
    for text in (None, "{"):
        if text:
            (tmp_path / "map").write_text(text)
        with pytest.raises(scope.GivenError, match=r"map cannot be read"):
            covering.read(tmp_path / "map")


def test_many_changed_tests_cost_a_mutant_nothing_and_gone_ones_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, asked, work = "tests/ci/test_mutants_told.py", list[str](), list[jobs.MutantJob]()
    reached = covering.Reached(
        {f"{here}::a": 0.1, "tests/gone.py::b": 0.1},
        {RULE: {"f": ("tests/gone.py::b", f"{here}::a")}},
        {},
    )
    monkeypatch.setattr(covering, "read", lambda: reached)
    monkeypatch.setattr(
        covering.Reached, "may_reach", lambda _, test, file: bool(asked.append(file)) or True
    )
    monkeypatch.setattr(running, "run_jobs", lambda found, *_: work.extend(found))
    many = [mutants.Mutant(str(n), RULE, 1, "f", "", n, True) for n in range(9)]
    running.run(many, Path("none"), 1, 0.0, ["tests/new.py"])
    assert asked == [RULE]
    assert {job.tests for job in work} == {(f"{here}::a", "tests/new.py")}
