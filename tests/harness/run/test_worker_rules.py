"""What a worker process does with a task: with work that is made up, in the test's own process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from records import DECODE, changed, record
from run_documents import DIVERGENCE
from run_documents import case as document
from working import CONTRACT, NUMERICS, OTHER, UNIT, made

from kvparity.core import doing
from kvparity.plan.results import Divergence
from kvparity.relations.accuracy.measure import Against, against
from kvparity.relations.bits_and_limits import Comparison
from kvparity.report.lines import Launches, PathLine, UnitLine
from kvparity.report.lines import Sequence as Drawn
from kvparity.report.run_dir import Evidence
from kvparity.report.unit_paths import Before
from kvparity.run import worker
from kvparity.run.worker import Job
from kvparity.subjects.base import SubjectError, UnsupportedError


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_subjects", {})
    monkeypatch.setattr(worker, "unsettled", lambda: None)
    doing.task("before")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(CONTRACT, tmp_path, "cpu", tmp_path)


def test_a_subject_is_loaded_once_for_a_run_and_a_format(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = made(monkeypatch)
    first = worker.subject_of(job, NUMERICS)
    assert worker.subject_of(job, NUMERICS) is first
    second = worker.subject_of(job, OTHER)
    assert worker.subject_of(job, NUMERICS) is first
    assert worker.subject_of(job, OTHER) is second is not first
    kind, model, options, task = asked[1]
    assert (kind, model) == ("decoder", CONTRACT.subject)
    assert options == {
        "execution": "bfloat16", "kv_cache": "bfloat16", "device": torch.device("cpu"), "seed": 3,
        "base": tmp_path,
    }  # fmt: skip
    assert task == "loading the subject in bfloat16"
    # Another run's subjects are let go.
    worker.subject_of(replace(job, folder=tmp_path / "other"), NUMERICS)
    assert len(asked) == 3
    assert [name[0] for name in worker._subjects] == [str(tmp_path / "other")]
    assert worker.subject_of(job, NUMERICS) is not first


FAILS: dict[str, tuple[BaseException, type[Exception], str]] = {
    "no device memory": (
        torch.cuda.OutOfMemoryError("full"), SubjectError,
        "out of device memory while loading the subject: full",
    ),
    "a name that means nothing": (ValueError("no such preset"), UnsupportedError, "no such preset"),
    "what it raised itself": (SubjectError("words"), SubjectError, "words"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILS)
def test_a_subject_that_cannot_be_loaded_is_told(
    name: str, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    error, kind, words = FAILS[name]
    asked = made(monkeypatch, error)
    for _ in range(2):
        with pytest.raises(kind, match=words):
            worker.subject_of(job, NUMERICS)
    assert len(asked) == 2  # nothing is kept of it


def test_a_subject_that_changes_the_process_is_not_kept(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = made(monkeypatch)
    settled: list[int] = []
    monkeypatch.setattr(worker, "unsettled", lambda: "threads are 7")
    monkeypatch.setattr(worker, "settle_again", lambda: settled.append(1))
    for _ in range(2):
        with pytest.raises(SubjectError, match="loading the subject in float32: threads are 7, "):
            worker.subject_of(job, NUMERICS)
    assert (len(asked), settled) == (2, [1, 1])


# a unit

SHORT = record(DECODE, values=changed(3, 0, -9.0))
FAR = against(SHORT, record().values.double(), column=0)


DECODED = PathLine(
    unit=UNIT.id,
    path="decode",
    probed=False,
    observed={},
    launches=Launches(counts={}, kernels={}),
    seconds=None,
    rows=(),
)


ENDED = UnitLine(
    unit=UNIT.id, sequences=(Drawn(id="w/0", prompt=1, ids=(0, 1)),), subject={}, observed={},
    launches={}, seconds={}, rows={},
)  # fmt: skip


def unit_of(emitted: Any, given_to: dict[str, Any] | None = None) -> Any:
    """What stands in for running a unit: it gives these cases and the line of one path."""

    def run(setting: Any, unit: Any, **given: Any) -> UnitLine:
        given["ran"](DECODED)
        for case, found in zip(unit.cases, emitted, strict=False):
            given["emit"](case, *found)
        if given_to is not None:
            given_to.update(given)
        return ENDED

    return run


HELD = Comparison("holds", "because", tokens=5, max_ulp=0)
PARTED = Comparison(
    "differs", "bits differ", tokens=5, differing_rows=1, first_divergence=Divergence(**DIVERGENCE)
)
KEPT: dict[str, tuple[tuple[Comparison, Any, Any], str | None]] = {
    "it holds": ((HELD, record(), SHORT), None),
    "it differs": ((PARTED, record(), SHORT), "failures"),
    "it differs from nothing that is kept": ((PARTED, None, SHORT), None),
    "float64, within": ((HELD, FAR, SHORT), "accuracy"),
    "float64, over": ((PARTED, FAR, SHORT), "accuracy"),
    "it is void": ((Comparison("void", "words"), record(), SHORT), None),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_a_case_gave_is_kept_where_it_says_something(
    name: str, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, folder = KEPT[name]
    made(monkeypatch)
    monkeypatch.setattr(worker, "run_unit", unit_of([found]))
    assert worker.do_unit(job, UNIT, None, frozenset()) == UNIT.id
    evidence = Evidence(job.folder)
    (line,) = evidence.lines("cases.jsonl")
    assert (line["id"], line["verdict"]) == (UNIT.cases[0].id, found[0].outcome)
    assert line.get("evidence") == (
        None if folder is None else f"{folder}/{UNIT.cases[0].id}.safetensors"
    )
    for each in ("failures", "accuracy"):
        assert (job.folder / each).exists() == (each == folder)
    assert isinstance(found[1], Against) == (folder == "accuracy")


@pytest.mark.parametrize("again", [False, True])
def test_a_unit_leaves_its_paths_and_once_its_tokens(
    again: bool, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(monkeypatch)
    given: dict[str, Any] = {}
    monkeypatch.setattr(worker, "run_unit", unit_of([], given))
    tokens = [[5, 6, 7, 1, 2, 3], [9, 1, 2, 3]] if again else None
    worker.do_unit(job, UNIT, tokens, frozenset())
    assert list(Evidence(job.folder).read(PathLine)) == [(1, DECODED)]
    assert (job.folder / "units.jsonl").exists() == (not again)
    if not again:
        assert list(Evidence(job.folder).read(UnitLine)) == [(1, ENDED)]
        assert (given["tokens"], given["done"]) == (None, frozenset())


def test_a_unit_that_changes_the_process_keeps_no_case_of_it(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(monkeypatch)
    worker.subject_of(job, NUMERICS)
    monkeypatch.setattr(worker, "settle_again", lambda: None)
    monkeypatch.setattr(worker, "unsettled", lambda: "threads are 7")
    monkeypatch.setattr(worker, "run_unit", unit_of([(HELD, record(), SHORT)]))
    with pytest.raises(SubjectError, match="threads are 7"):
        worker.do_unit(job, UNIT, None, frozenset())
    assert not (job.folder / "cases.jsonl").exists()
    assert not (job.folder / "units.jsonl").exists()


def test_what_an_interrupted_unit_left_is_what_its_own_cases_and_paths_say(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence = Evidence(job.folder)
    ran: list[str] = []

    def paths(found: Evidence, unit: Any) -> Iterator[PathLine]:
        ran.append(unit.id)
        yield DECODED

    monkeypatch.setattr(worker.believed, "of_unit", paths)
    first, *rest = (case.id for case in UNIT.cases if case.relation == "invariance")
    assert worker._before(evidence, UNIT, frozenset()) == Before()
    assert ran == []
    repeats = {"prefill": True, "decode": False}
    evidence.append("cases.jsonl", {"id": "c999", "invariance": {"repeats": {"x": True}}})
    evidence.append("cases.jsonl", document(id=rest[0]))
    evidence.append("cases.jsonl", document(id=first, invariance={"repeats": repeats}))
    one = (DECODED,)
    assert worker._before(evidence, UNIT, frozenset([first])) == Before(one, repeats)
    assert worker._before(evidence, UNIT, frozenset([rest[0], "c999"])) == Before(one, {})
    evidence.write(DECODED)
    assert worker._before(evidence, UNIT, frozenset()) == Before(one, {})
    assert ran == [UNIT.id] * 3
