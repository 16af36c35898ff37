from __future__ import annotations

import json
from collections import Counter
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from run_documents import whole_report as report
from safetensors import safe_open

from kvparity.plan.schedule import Layout, Plan
from kvparity.record.execute import Record
from kvparity.report.run_dir import Evidence, RunFolderError
from kvparity_kernels.launch import LaunchLog

IDENTITY = {"path": "c.yaml", "contract": "abc", "device": "cpu", "versions": {"torch": "2.9"}}


def started(folder: Path) -> Evidence:
    evidence = Evidence(folder)
    evidence.start(IDENTITY, resume=False)
    return evidence


def append_many(folder: str, worker: int, count: int) -> None:
    evidence = Evidence(Path(folder))
    for i in range(count):
        evidence.append("cases.jsonl", {"id": i, "worker": worker, "i": i, "pad": "x" * 5000})


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    evidence = started(tmp_path / "deep" / "run")
    assert list(evidence.lines("cases.jsonl")) == []
    values: list[dict[str, Any]] = [{"id": "c0"}, {"id": "c1", "text": "a\u2028b\nc"}]
    for value in values:
        evidence.append("cases.jsonl", value)
    assert list(evidence.lines("cases.jsonl")) == values
    assert (evidence.folder / "failures").is_dir()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_processes_that_append_at_once_do_not_mix_their_lines(tmp_path: Path) -> None:
    evidence = started(tmp_path / "run")
    fork = get_context("fork")
    workers = [
        fork.Process(target=append_many, args=(str(evidence.folder), n, 150)) for n in range(2)
    ]
    for worker in workers:
        worker.start()
    append_many(str(evidence.folder), 2, 150)
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    found = list(evidence.lines("cases.jsonl"))
    for n in range(3):
        assert [entry["i"] for entry in found if entry["worker"] == n] == list(range(150))


def test_nothing_that_json_does_not_know_is_written(tmp_path: Path) -> None:
    evidence = started(tmp_path / "run")
    with pytest.raises(ValueError, match="not JSON compliant"):
        evidence.append("cases.jsonl", {"x": float("nan")})
    assert list(evidence.lines("cases.jsonl")) == []


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    evidence = started(tmp_path / "run")
    evidence.append("cases.jsonl", {"id": "c0"})
    file = evidence.folder / "cases.jsonl"
    file.write_bytes(file.read_bytes() + b'{"id": "c1", "verd')
    # A reader of the interrupted run does not stumble over it ...
    assert list(evidence.lines("cases.jsonl")) == [{"id": "c0"}]
    # ... and a resumed run cuts it off, so that the next line does not join it.
    evidence.start(IDENTITY, resume=True)
    evidence.append("cases.jsonl", {"id": "c1"})
    assert list(evidence.lines("cases.jsonl")) == [{"id": "c0"}, {"id": "c1"}]


def test_a_torn_first_line_is_dropped_too(tmp_path: Path) -> None:
    evidence = started(tmp_path / "run")
    (evidence.folder / "units.jsonl").write_bytes(b'{"unit"')
    evidence.start(IDENTITY, resume=True)
    assert (evidence.folder / "units.jsonl").read_bytes() == b""


def test_damage_before_the_end_is_not_passed_over(tmp_path: Path) -> None:
    evidence = started(tmp_path / "run")
    for line in ('{"id"', "[1]", '{"verdict": "holds"}'):
        (evidence.folder / "cases.jsonl").write_text(f'{line}\n{{"id": "c1"}}\n')
        with pytest.raises(RunFolderError, match=r"cases\.jsonl:1 is damaged"):
            list(evidence.lines("cases.jsonl"))


def test_a_run_of_another_schema_is_not_resumed(tmp_path: Path) -> None:
    old = tmp_path / "old"
    Evidence(old).start(IDENTITY, resume=False)  # schema 1 did not name itself
    now = IDENTITY | {"schema_version": 2}
    with pytest.raises(RunFolderError, match=r"holds a run of schema 1, .* cannot be resumed; use"):
        Evidence(old).start(now, resume=True)
    new = tmp_path / "new"
    Evidence(new).start(now, resume=False)
    Evidence(new).start(now, resume=True)  # the control


@pytest.mark.parametrize("key", sorted(IDENTITY))
def test_a_run_is_resumed_under_the_same_identity_alone(tmp_path: Path, key: str) -> None:
    evidence = started(tmp_path / "run")
    evidence.start(IDENTITY, resume=True)
    with pytest.raises(RunFolderError, match=f"cannot be resumed: {key} changed"):
        evidence.start(IDENTITY | {key: "other"}, resume=True)


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    evidence = started(tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"exists and is not empty; add --resume"):
        evidence.start(IDENTITY, resume=False)
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("dear diary")
    with pytest.raises(RunFolderError, match="not empty"):
        started(foreign)
    assert (foreign / "notes.txt").read_text() == "dear diary"
    empty = tmp_path / "empty"
    empty.mkdir()
    started(empty)


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(RunFolderError, match="is a file"):
        started(file)
    with pytest.raises(RunFolderError, match="cannot write to"):
        started(file / "below")
    with pytest.raises(RunFolderError, match="File name too long"):
        started(tmp_path / ("x" * 300))
    with pytest.raises(RunFolderError, match="holds no run to resume"):
        Evidence(tmp_path / "none").start(IDENTITY, resume=True)


def test_a_damaged_identity_is_refused(tmp_path: Path) -> None:
    evidence = started(tmp_path / "run")
    (evidence.folder / "identity.json").write_text('{"contract": "ab')
    with pytest.raises(RunFolderError, match="is damaged"):
        evidence.start(IDENTITY, resume=True)


def test_a_failure_keeps_both_sides(tmp_path: Path) -> None:
    evidence = started(tmp_path / "run")

    def record(value: float) -> Record:
        return Record(
            plan=Plan((), (), Layout()),
            index=((0, 3), (1, 5)),
            targets=torch.tensor([7, 8]),
            values=torch.tensor([[value], [torch.nan]]),
            digests=torch.tensor([1, -1]),
            finite=torch.tensor([True, False]),
            observed=Counter(),
            launches=LaunchLog(),
        )

    name = evidence.keep_failure("c007", record(1.5), record(2.5))
    assert name == "failures/c007.safetensors"
    with safe_open(str(evidence.folder / name), "pt") as file:
        assert json.loads(file.metadata()["index"]) == [[0, 3], [1, 5]]
        assert file.get_tensor("reference.values")[0].item() == 1.5
        assert file.get_tensor("candidate.values")[0].item() == 2.5
        assert file.get_tensor("candidate.digests").tolist() == [1, -1]
        assert file.get_tensor("reference.targets").tolist() == [7, 8]


def test_the_report_is_written_whole(tmp_path: Path) -> None:
    evidence = started(tmp_path / "run")
    evidence.finish(report("holds"))
    assert json.loads((evidence.folder / "run.json").read_text()) == report("holds").document()


@pytest.mark.parametrize("file", ["cases.jsonl", "run.json", "failures/c0.safetensors"])
def test_what_cannot_be_written_is_said(tmp_path: Path, file: str) -> None:
    evidence = started(tmp_path / "run")
    (evidence.folder / file).mkdir()  # as good as a full disk
    record = Record((), (), *[torch.zeros(0)] * 4, Counter(), {})  # type: ignore[arg-type]
    with pytest.raises(RunFolderError, match=f"{file} could not be written"):
        {
            "cases.jsonl": lambda: evidence.append(file, {}),
            "run.json": lambda: evidence.finish(report("holds")),
            "failures/c0.safetensors": lambda: evidence.keep_failure("c0", record, record),
        }[file]()


def test_a_report_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    evidence = started(tmp_path / "run")
    evidence.finish(report("differs"))
    (evidence.folder / "run.json.part").mkdir()
    with pytest.raises(RunFolderError, match="could not be written"):
        evidence.finish(report("holds"))
    assert json.loads((evidence.folder / "run.json").read_text())["verdict"] == "differs"


@pytest.mark.parametrize("resume", [False, True])
def test_two_runs_do_not_share_a_folder(tmp_path: Path, resume: bool) -> None:
    if resume:
        started(tmp_path / "run")
    first, second = Evidence(tmp_path / "run"), Evidence(tmp_path / "run")
    with (
        first.alone(IDENTITY, resume=resume),
        pytest.raises(RunFolderError, match="another kvparity runs in"),
        second.alone(IDENTITY, resume=True),
    ):
        raise AssertionError("the folder is taken")
    with second.alone(IDENTITY, resume=True):
        pass
