"""What a worker process does with controls and kernel cases, and with what a subject raises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from working import CONTRACT, NUMERICS, UNIT, WORK, made, raising

from kvparity.core import doing
from kvparity.plan.cases import ControlRun
from kvparity.plan.kernel_cases import KernelCase, KernelControl
from kvparity.plan.results import ControlLine
from kvparity.relations.asked import Planted
from kvparity.relations.audit.relation import AuditRelation
from kvparity.relations.order.relation import OrderRelation
from kvparity.report.run_dir import Evidence, RunFolderError
from kvparity.run import worker
from kvparity.run.worker import Job
from kvparity.subjects.base import OracleError, SubjectError, UnsupportedError


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_subjects", {})
    monkeypatch.setattr(worker, "unsettled", lambda: None)
    doing.task("before")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(CONTRACT, tmp_path, "cpu", tmp_path)


# controls

CONTROL = WORK.controls[0]


def ended(control: ControlRun | KernelControl) -> dict[str, Any]:
    return {"name": control.control, "relation": control.relation, "unplanted": None}


ENDS: dict[str, tuple[BaseException, str]] = {
    "in words": (SubjectError("two\n words"), "the run with it ended: two words"),
    "otherwise": (KeyError("x"), "the run with it ended: KeyError: 'x'"),
    "without a word": (SubjectError(""), "the run with it ended: without a message"),
    "by leaving": (SystemExit(3), "the subject ended the process (SystemExit(3))"),
    "without memory": (MemoryError(), "out of memory"),
    "without device memory": (torch.cuda.OutOfMemoryError("x"), "out of device memory: x"),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_control_that_ends_its_run_is_not_caught_and_ends_nothing(
    name: str, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    error, words = ENDS[name]
    made(monkeypatch)
    monkeypatch.setattr(worker, "plant", raising(error))
    assert worker.do_control(job, CONTROL, []) == ended(CONTROL)
    ((_, found),) = Evidence(job.folder).read(ControlLine)
    assert (found.name, found.caught) == (CONTROL.control, False)
    assert words in found.seen


@pytest.mark.parametrize("error", [OracleError("no float64"), UnsupportedError("no pads")])
def test_a_control_that_cannot_be_planted_is_no_control_that_ran(
    error: Exception, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(monkeypatch)
    monkeypatch.setattr(worker, "plant", raising(error))
    assert worker.do_control(job, CONTROL, []) == {
        "name": CONTROL.control, "relation": CONTROL.relation, "unplanted": str(error),
    }  # fmt: skip
    assert not (job.folder / "controls.jsonl").exists()


def test_who_waits_for_a_control_or_a_kernel_case_is_told_which(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(monkeypatch)
    seen: list[str] = []

    def noting(answer: Any) -> Any:
        def notes(*_: Any, **__: Any) -> Any:
            seen.append(doing.now().task)
            return answer

        return notes

    monkeypatch.setattr(worker, "plant", noting(Planted(True, "bits differ")))
    assert worker.do_control(job, CONTROL, []) == ended(CONTROL)
    (case,) = WORK.kernel_cases
    finding = object()
    monkeypatch.setattr("kvparity.relations.order.relation.certify", noting(finding))
    monkeypatch.setattr("kvparity.relations.audit.relation.audit", noting(finding))
    audited = KernelCase("c900", "sound", "audit", NUMERICS, architecture="sm_90")
    assert worker.look(job, case) is worker.look(job, audited) is finding
    monkeypatch.setattr(OrderRelation, "control", noting(Planted(True, "seen")))
    monkeypatch.setattr(AuditRelation, "control", noting(Planted(False, "not seen")))
    for control in (KernelControl("other-tile", case), KernelControl("other-warps", audited)):
        assert worker.do_kernel_control(job, control) == ended(control)
    lines = [line for _, line in Evidence(job.folder).read(ControlLine)]
    assert [(line.caught, line.seen) for line in lines] == [
        (True, "bits differ"), (True, "seen"), (False, "not seen"),
    ]  # fmt: skip
    assert seen == [
        f"control {CONTROL.control} of relation {CONTROL.relation} over w",
        f"case {case.id}: order of 65 keys in float32",
        "case c900: audit for sm_90",
        "control other-tile of relation order",
        "control other-warps of relation audit",
    ]


def test_a_control_of_kernels_that_ends_its_run_is_not_caught_or_not_planted(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(monkeypatch)
    control = KernelControl("other-tile", WORK.kernel_cases[0])
    monkeypatch.setattr(OrderRelation, "control", raising(KeyError("x")))
    assert worker.do_kernel_control(job, control) == ended(control)
    monkeypatch.setattr(OrderRelation, "control", raising(UnsupportedError("no trees")))
    assert worker.do_kernel_control(job, control) == {
        "name": "other-tile", "relation": "order", "unplanted": "no trees",
    }  # fmt: skip
    ((_, found),) = Evidence(job.folder).read(ControlLine)
    assert (found.caught, found.seen) == (False, "the run with it ended: KeyError: 'x'")


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_rows_are_asked_of_another_process_for_which_memory_is_made_free(
    device: str, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(monkeypatch)
    worker.subject_of(job, NUMERICS)
    seen: list[Any] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: seen.append("emptied"))

    def ask(*given: Any) -> Any:
        seen.append((doing.now().task, len(worker._subjects)))
        assert given[0] is worker._rows_again
        return {"decode": []}

    monkeypatch.setattr(worker.zygote, "ask", ask)
    found = worker.do_recheck(replace(job, device=device), UNIT, [], [])
    assert found == {"unit": UNIT.id, "rows": {"decode": []}}
    words = f"rows of {UNIT.id}, in a fresh process"
    assert seen == [*([] if device == "cpu" else ["emptied"]), (words, 0)]


def test_a_process_of_ours_begins_settled_and_with_a_process_to_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(worker, "settle", lambda: seen.append("settled"))
    monkeypatch.setattr(worker.zygote, "start", lambda: seen.append("started"))
    worker.start()
    assert seen == ["settled", "started"]
    monkeypatch.setattr(worker, "stop_a_copy", lambda: seen.append("looked for a copy"))
    worker.still_settled("here")
    assert seen[2:] == ["looked for a copy"]


# what a subject raises


def test_what_a_subject_raises_says_where_and_leaves_its_traceback(job: Job) -> None:
    evidence = Evidence(job.folder)
    traced = SubjectError("words")
    traced.trace = "its lines"
    for task, name in (("case c003: decode", "c003"), ("rollout by decode", "u0")):
        doing.task(task)
        with pytest.raises(SubjectError) as caught, worker.telling(evidence, "u0"):
            raise traced
        said = str(caught.value)
        assert said.startswith(f"{task}: words; its traceback: ")
        assert name in said.rpartition("/")[2]
    with pytest.raises(SubjectError) as caught, worker.telling(evidence, "u0"):
        raise SubjectError("rollout by decode: words")
    assert str(caught.value) == "rollout by decode: words"


def test_a_traceback_that_cannot_be_kept_is_said_beside_what_was_raised(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence = Evidence(job.folder)
    traced = SubjectError("words")
    traced.trace = "its lines"
    monkeypatch.setattr(Evidence, "keep_trace", raising(RunFolderError("disk full")))
    with (
        pytest.raises(SubjectError, match="before: words; disk full"),
        worker.telling(evidence, "u0"),
    ):
        raise traced


@pytest.mark.parametrize("name", list(ENDS)[3:])
def test_what_ends_a_process_is_told_as_the_subjects(name: str) -> None:
    error, words = ENDS[name]
    with pytest.raises(SubjectError) as caught:
        worker.guarded(raising(error))
    assert str(caught.value) == f"before: {words}"
    assert worker.guarded(lambda: 7) == 7


def test_a_changed_process_is_told_before_what_came_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    again: list[int] = []
    monkeypatch.setattr(worker, "unsettled", lambda: "threads are 7")
    monkeypatch.setattr(worker, "settle_again", lambda: again.append(1))
    with pytest.raises(SubjectError, match="before: threads are 7, which kvparity had set"):
        worker.guarded(raising(KeyError("x")))
    with pytest.raises(SubjectError, match="threads are 7"):
        worker.guarded(lambda: cast(Any, 7))
    assert again == [1, 1]
