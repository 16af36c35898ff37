"""Relation reproduction: a path run again in other processes, and what must make it red or void."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from few import few
from toy import Toy

from kvparity.controls import repeats
from kvparity.controls.base import each_session
from kvparity.core.isolation.pool import Pool, PoolTask
from kvparity.plan.results import CaseLine
from kvparity.relations.reproduction import RunPlace
from kvparity.report.lines import AgainRows
from kvparity.run import again, pools, reproduce, worker
from kvparity.run import verify as running
from kvparity.run.replay import replay
from kvparity.subjects.base import Subject, UnsupportedError
from kvparity_contracts.checks import ReproductionCheck
from kvparity_contracts.loader import load
from kvparity_contracts.problems import ContractError

AGAIN = {"name": "again", "relation": "reproduction", "paths": ["decode"]}
SHORT = {"name": "w", "prompts": [[5, 6, 7], [9]], "generate": 3}
NAMES = ["bits-by-chance", "bits-by-process", "bits-by-history"]


class Forked(Pool):
    """All tasks of one call in a copy of this process: another id, and what it had is known."""

    opened = 0

    def __init__(self, nodes: int) -> None:
        self.node = f"node{Forked.opened % nodes}"
        Forked.opened += 1

    def __exit__(self, *_: object) -> None:
        pass

    def finish(self) -> None:
        pass

    def run(self, tasks: Iterable[PoolTask[Any]]) -> Iterator[Any]:
        theirs, ours = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads at a fork
            child = os.fork()
        if not child:
            code = 1
            try:
                os.environ[again.NODE] = self.node
                found = [task.function(*task.arguments) for task in tasks]
                os.write(ours, json.dumps(found).encode())
                code = 0
            finally:
                os._exit(code)
        os.close(ours)
        with os.fdopen(theirs, "rb") as pipe:
            text = pipe.read()
        assert os.waitpid(child, 0)[1] == 0
        yield from json.loads(text)


def written(folder: Path, check: dict[str, Any], controls: Any = "all") -> Path:
    file = folder / "contract.yaml"
    document = toy.document(checks=[AGAIN | check], workloads=[SHORT]) | {"controls": controls}
    file.write_text(json.dumps(document, indent=1))
    return file


def verify(
    folder: Path, patch: pytest.MonkeyPatch, subject: Subject, nodes: int = 1, resume: bool = False,
    controls: Any = "all", **check: Any,
) -> dict[str, Any]:  # fmt: skip
    patch.setattr(worker, "factory", lambda kind: lambda model, **options: subject)
    patch.setattr(worker, "_subjects", {})
    patch.setattr(pools.Locally, "open", lambda *_: Forked(nodes))
    patch.setattr(running, "_recheck", lambda *_: running.Outcome({}, skipped="not here"))
    patch.setattr(Forked, "opened", 0)
    return running.verify(
        load(written(folder, check, controls)), device="cpu", folder=folder / "run", jobs=1,
        resume=resume, command="", progress=lambda *_: None,
    ).document()  # fmt: skip


def stirred(seed: Callable[[], int]) -> Subject:
    """A toy whose rows are scaled by what ``seed`` says when they are computed."""
    return each_session(lambda session: repeats._Stirred(session, seed()))(Toy())


@pytest.mark.parametrize(
    ("subject", "nodes", "check", "verdict", "words"),
    few([
        (Toy, 1, {}, "holds", "1 case, bits are equal in every process; 3 controls caught"),
        (Toy, 3, {"times": 3, "across": "nodes"}, "holds", "1 case, bits are equal in every"),
        (Toy, 1, {"across": "nodes"}, "void", "2 nodes were asked for, and it ran on 1 node (n"),
        (Toy, 2, {"times": 3, "across": "nodes"}, "void", "it ran on 2 nodes (node0, node1)"),
        (lambda: stirred(os.getpid), 1, {}, "differs", "another process gives other bits"),
        (lambda: stirred(os.getpid), 2, {}, "differs", "another process on node node1 gives other"),
        (lambda: Toy("unsteady"), 1, {}, "differs", "a second run in the same process gives other"),
        (lambda: Toy("nan-rows"), 1, {}, "differs", "NaN or Inf in an active token"),
        (lambda: Toy("never-decodes"), 1, {}, "void", "no decode was observed"),
    ], 5),
    ids=[
        "same", "three nodes", "one node", "two nodes of three", "by process", "by node",
        "by history", "nan", "no decode",
    ],
)  # fmt: skip
def test_bits_of_other_processes_decide(
    subject: Callable[[], Subject], nodes: int, check: dict[str, Any], verdict: str, words: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart: None,
) -> None:  # fmt: skip
    report = verify(tmp_path, monkeypatch, subject(), nodes, **check)
    (found,) = report["checks"]
    (case,) = found["cases"]
    assert found["verdict"] == verdict
    assert words in f"{found['reason']}; {case['reason']}"
    runs = case["reproduction"]["runs"]
    assert len({run["process"] for run in runs}) == check.get("times", 2)
    assert runs[0]["versions"]["torch"] == torch.__version__
    if verdict == "holds":
        assert [control["name"] for control in report["controls"]] == NAMES
        assert all(control["caught"] for control in report["controls"])


def test_a_resumed_run_goes_on_with_the_cases_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart: None
) -> None:
    first = verify(tmp_path, monkeypatch, Toy())
    cases = tmp_path / "run" / "cases.jsonl"
    cases.write_text("")
    second = verify(tmp_path, monkeypatch, Toy(), resume=True)
    ran = [each["checks"][0]["cases"][0]["reproduction"]["runs"] for each in (first, second)]
    assert ran[0] != ran[1]
    assert second["verdict"] == "holds"
    with pytest.raises(UnsupportedError, match="is run in several processes"):
        replay(load(tmp_path / "contract.yaml"), tmp_path / "run", "c000", "cpu")


@pytest.mark.parametrize("name", NAMES)
def test_a_control_that_shows_nothing_makes_it_void(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart: None
) -> None:
    monkeypatch.setitem(again.planting.__globals__["PLANTS"], name, lambda subject: subject)
    report = verify(tmp_path, monkeypatch, Toy(), controls=[name])
    assert report["verdict"] == "void"
    assert report["checks"][0]["reason"] == f"planted and not caught: {name}"


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (UnsupportedError("not here"), "control bits-by-chance was asked for and not planted: not"),
        (ValueError("no"), "planted and not caught: bits-by-chance"),
    ],
)
def test_a_control_that_cannot_be_planted_or_ends_proves_nothing(
    raised: Exception, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart: None
) -> None:
    def refused(subject: Subject) -> Subject:
        raise raised

    monkeypatch.setitem(again.planting.__globals__["PLANTS"], "bits-by-chance", refused)
    report = verify(tmp_path, monkeypatch, Toy(), controls=["bits-by-chance"])
    assert words in report["checks"][0]["reason"]


def test_a_subject_in_the_callers_process_is_in_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = verify(tmp_path, monkeypatch, Toy())
    assert report["verdict"] == "void"
    assert reproduce.INSIDE in report["checks"][0]["reason"]


def test_rows_of_another_length_or_of_one_process_show_nothing() -> None:
    check = ReproductionCheck.model_validate(AGAIN)
    row = (0, 3, "0x" + "0" * 16, ("0x1",))

    def answer(process: int, *rows: Any) -> AgainRows:
        place = RunPlace(node="a", process=process, device="cpu", uuid=None, versions={})
        return AgainRows(name="c000", place=place, rows=rows)

    first = answer(1, (row,), (row,))
    assert reproduce.compared(check, [first, answer(2, (row,))]).outcome == "holds"
    assert reproduce.compared(check, [first, answer(2, (row, row))]).outcome == "differs"
    assert reproduce.compared(check, [first, answer(2, ())]).outcome == "differs"
    same = reproduce.compared(check, [first, answer(1, (row,))])
    assert (same.outcome, same.reason) == ("void", "2 processes were asked for, and there were 1")
    assert reproduce.compared(check, [answer(1, (), ()), answer(2, ())]).outcome == "void"
    assert issubclass(reproduce.path_relation(check.relation).line, CaseLine)


def test_a_server_is_refused(tmp_path: Path) -> None:
    server = {"kind": "server", "url": "http://127.0.0.1:1", "api": "vllm", "vocabulary": 9}
    document = {
        "version": 1, "name": "s", "subject": server, "numerics": {"execution": ["float32"]},
        "workloads": [SHORT], "checks": [AGAIN],
    }  # fmt: skip
    file = tmp_path / "contract.yaml"
    file.write_text(json.dumps(document))
    with pytest.raises(ContractError, match="found reproduction of a running server"):
        load(file)
