"""Who may begin or resume a run in a folder, what is left of one that failed, and what is kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_documents import whole_report as report
from safetensors import safe_open
from torch import Tensor

from kvparity.core.lock import held
from kvparity.report.run_dir import Evidence, RunFolderError, read_identity

ABOUT = {"schema_version": 2, "path": "c.yaml", "contract": "abc"}
FILES = ("cases.jsonl", "units.jsonl", "controls.jsonl", "paths.jsonl")
KEYS = ("id", "unit", "name", "path")


def begun(folder: Path, **about: Any) -> Evidence:
    evidence = Evidence(folder)
    evidence.start(ABOUT | about, resume=False, command="kvparity verify c.yaml")
    return evidence


def names(folder: Path) -> set[str]:
    return {str(each.relative_to(folder)) for each in folder.rglob("*")}


def fails(evidence: Evidence, *, resume: bool, then: Callable[[], object] = lambda: None) -> None:
    """A run that ends with an error."""

    def run() -> None:
        with evidence.alone(ABOUT, resume=resume, command="now"):
            then()
            raise RunFolderError("no more")

    with pytest.raises(RunFolderError, match="no more"):
        run()


def test_a_resumed_run_that_fails_takes_nothing_away(tmp_path: Path) -> None:
    evidence = begun(tmp_path / "run")
    evidence.append("paths.jsonl", {"path": "decode"})
    before = names(tmp_path / "run")
    fails(evidence, resume=True)
    assert names(tmp_path / "run") == before == {"identity.json", "failures", "paths.jsonl"}
    assert evidence.command() == "kvparity verify c.yaml"


@pytest.mark.parametrize("there", [True, False])
def test_of_a_new_run_that_fails_before_anything_is_finished_nothing_is_left(
    there: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    if there:
        folder.mkdir()
    evidence = Evidence(folder)
    fails(evidence, resume=False, then=lambda: evidence.append("paths.jsonl", {"path": "decode"}))
    assert names(tmp_path) == ({"run"} if there else set())


def test_what_a_subject_raised_stays_and_lets_the_next_run_begin(tmp_path: Path) -> None:
    evidence = Evidence(tmp_path)
    fails(evidence, resume=False, then=lambda: evidence.keep_trace("c000", "Traceback"))
    assert names(tmp_path) == {"failures", "failures/c000.traceback.txt"}
    begun(tmp_path)
    assert names(tmp_path) == {"failures", "identity.json"}


def test_a_resumed_run_drops_what_the_subject_raised_before(tmp_path: Path) -> None:
    evidence = begun(tmp_path)
    evidence.keep_trace("c000", "Traceback")
    evidence.start(ABOUT, resume=True)
    assert names(tmp_path) == {"failures", "identity.json"}


def test_a_folder_of_failures_with_anything_else_is_somebodys(tmp_path: Path) -> None:
    (tmp_path / "failures").mkdir()
    (tmp_path / "failures" / "c000.safetensors").write_text("")
    with pytest.raises(RunFolderError, match="not empty"):
        begun(tmp_path)


def test_a_run_that_is_refused_because_of_another_leaves_the_other_alone(tmp_path: Path) -> None:
    first, second = Evidence(tmp_path / "run"), Evidence(tmp_path / "run")
    with first.alone(ABOUT, resume=False, command="first"):
        before = names(tmp_path)
        for resume in (True, False):
            with (
                pytest.raises(RunFolderError, match=r"another kvparity runs in|not empty"),
                second.alone(ABOUT, resume=resume, command="second"),
            ):
                raise AssertionError("the folder is taken")
            assert names(tmp_path) == before
        assert first.command() == "first"
    with second.alone(ABOUT, resume=True):
        pass


def test_a_new_run_that_another_overtook_writes_nothing(tmp_path: Path) -> None:
    with held(tmp_path, "verify"):
        with (
            pytest.raises(RunFolderError, match="another kvparity runs in"),
            Evidence(tmp_path).alone(ABOUT, resume=False),
        ):
            raise AssertionError("the folder is taken")
        assert names(tmp_path) == {"lock.json"}


def test_the_lock_ends_with_the_run(tmp_path: Path) -> None:
    evidence = begun(tmp_path)
    fails(evidence, resume=True)
    with evidence.alone(ABOUT, resume=True):
        evidence.append("cases.jsonl", {"id": "c000"})
    assert evidence.count("cases.jsonl") == 1


def test_a_run_whose_process_ended_badly_is_not_resumed(tmp_path: Path) -> None:
    evidence = begun(tmp_path)
    evidence.ended_badly("exit code 3")
    assert (tmp_path / "bad-end.txt").read_text() == "exit code 3\n"
    with pytest.raises(RunFolderError, match=r"did not end correctly \(.*bad-end.txt says why"):
        evidence.start(ABOUT, resume=True)


@pytest.mark.parametrize(
    ("old", "now", "changed"),
    [
        ({"contract": "b"}, {}, "contract"),
        ({"contract": "b", "path": "d"}, {}, "path, contract"),
        ({"tiles": {}}, {}, "tiles"),
        ({}, {"tiles": None}, "tiles"),
        ({"tiles": None}, {}, "tiles"),
    ],
)
def test_all_that_changed_is_named(
    old: dict[str, Any], now: dict[str, Any], changed: str, tmp_path: Path
) -> None:
    evidence = begun(tmp_path, **old)
    with pytest.raises(RunFolderError, match=rf"cannot be resumed: {changed} changed since"):
        evidence.start(ABOUT | now, resume=True)


def test_another_command_is_no_other_run(tmp_path: Path) -> None:
    evidence = begun(tmp_path)
    evidence.start(ABOUT, resume=True, command="kvparity verify c.yaml --resume")
    assert evidence.command() == "kvparity verify c.yaml"
    assert read_identity(tmp_path / "identity.json")["contract"] == "abc"


@pytest.mark.parametrize(("file", "key"), [*zip(FILES, KEYS, strict=True)])
def test_a_torn_line_is_cut_off_of_every_file_and_a_line_has_its_key(
    file: str, key: str, tmp_path: Path
) -> None:
    evidence = begun(tmp_path)
    evidence.append(file, {key: "a", "n": 1})
    evidence.append(file, {key: "b", "n": 2})
    path = tmp_path / file
    path.write_bytes(path.read_bytes() + b'{"torn')
    assert evidence.count(file) == 2
    assert [(n, line["n"]) for n, line in evidence.numbered(file)] == [(1, 1), (2, 2)]
    evidence.start(ABOUT, resume=True)
    assert path.read_bytes().count(b"torn") == 0
    path.write_text('{"n": 1}\n')
    with pytest.raises(RunFolderError, match=rf"{file}:1"):
        list(evidence.lines(file))


def test_no_line_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert Evidence(tmp_path).count("cases.jsonl") == 0


def test_a_line_of_which_a_part_was_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence = begun(tmp_path)
    monkeypatch.setattr("kvparity.report.run_dir.os.write", lambda handle, line: len(line) - 1)
    with pytest.raises(RunFolderError, match=r"only a part could be written; disk full\?"):
        evidence.append("cases.jsonl", {"id": "c000"})


class Kept:
    index = ((0, 3), (1, 5))

    def __init__(self, value: float) -> None:
        self.value = value

    def tensors(self) -> dict[str, Tensor]:
        return {"values": torch.full((2,), self.value), "digests": torch.tensor([1, -1])}


def test_an_accuracy_case_and_both_sides_of_a_failure_are_kept(tmp_path: Path) -> None:
    evidence = begun(tmp_path)
    assert evidence.keep_failure("c1", Kept(1), Kept(2)) == "failures/c1.safetensors"
    assert evidence.keep_accuracy("c2", Kept(3)) == "accuracy/c2.safetensors"
    with safe_open(str(tmp_path / "failures/c1.safetensors"), "pt") as file:
        assert {
            name: file.get_tensor(name).tolist()
            for name in file.keys()  # noqa: SIM118 - no mapping
        } == {
            f"{side}.{name}": value
            for side, first in (("reference", 1.0), ("candidate", 2.0))
            for name, value in (("values", [first] * 2), ("digests", [1, -1]))
        }
        assert json.loads(file.metadata()["index"]) == [[0, 3], [1, 5]]
    with safe_open(str(tmp_path / "accuracy/c2.safetensors"), "pt") as file:
        assert file.get_tensor("values").tolist() == [3.0, 3.0]
    assert not list(tmp_path.rglob("*.part"))
    evidence.keep_failure("c1", Kept(4), Kept(5))  # a resumed run writes it once more
    with safe_open(str(tmp_path / "failures/c1.safetensors"), "pt") as file:
        assert file.get_tensor("candidate.values").tolist() == [5.0, 5.0]


def test_the_report_is_json_or_nothing(tmp_path: Path) -> None:
    evidence = begun(tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        evidence.finish(report("holds", subject={"x": float("inf")}))
    assert not (tmp_path / "run.json").exists()
    found = report("holds", subject={"x": [1, None]})
    evidence.finish(found)
    assert json.loads((tmp_path / "run.json").read_text()) == found.document()
    assert not (tmp_path / "run.json.part").exists()


def test_a_line_leaves_nothing_open_and_a_file_that_its_owner_writes(tmp_path: Path) -> None:
    evidence = begun(tmp_path)
    free = os.dup(0)  # the least that is free
    os.close(free)
    evidence.append("cases.jsonl", {"id": "c000"})
    again = os.dup(0)
    os.close(again)
    assert again == free
    assert (tmp_path / "cases.jsonl").stat().st_mode & 0o755 == 0o644
