"""Machines that are lost, and runs that end early: nothing is lost, nothing counts twice."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from node_stand_ins import Nodes, StandIn
from nodes_runs import ALONE, LINES, again, each_line, left, lines, once, swapped, verified
from toy import Toy

from kvparity.core.errors import SubjectError
from kvparity.run.on_ray import workers
from kvparity.run.on_ray.request import NodeNeed
from kvparity.run.on_ray.sent import SentPart


@pytest.mark.parametrize("losing", [(0,), (1,), (2, 5), (1, 3, 4)], ids=str)
def test_a_lost_machine_loses_nothing_and_counts_nothing_twice(
    ran_here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, losing: tuple[int, ...]
) -> None:
    verified(tmp_path, monkeypatch, Nodes(losing))
    assert left(tmp_path / "run") == left(ran_here)
    retries = lines(tmp_path / "run", "retries.jsonl")
    assert len(retries) >= len(losing)  # more where a second unit had begun to send
    assert all(each["why"] == "NodeDiedError: it is gone" for each in retries)
    assert all(each["changed"] == [] for each in retries)
    again = [each["place"] for each in lines(tmp_path / "run", "cases.jsonl")]
    told = {each["attempts"]: each["lost"] for each in again if each["attempts"] > 1}
    assert all(words == ["NodeDiedError: it is gone"] * (n - 1) for n, words in told.items())


@pytest.mark.parametrize("nodes", [True, False], ids=["on nodes", "here"])
def test_a_run_on_nodes_that_ended_early_goes_on_anywhere(
    ran_here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: bool
) -> None:
    def stop(task: int, part: SentPart) -> SentPart:
        if sum(map(len, (lines(tmp_path / "run", name) for name in LINES))):
            raise KeyboardInterrupt
        return part

    with pytest.raises(KeyboardInterrupt):
        verified(tmp_path, monkeypatch, Nodes(change=stop))
    kept = lines(tmp_path / "run", "cases.jsonl")
    assert 0 < len(kept) < len(lines(ran_here, "cases.jsonl"))
    verified(tmp_path, monkeypatch, Nodes() if nodes else None, resume=True)
    assert left(tmp_path / "run") == left(ran_here)
    assert lines(tmp_path / "run", "cases.jsonl")[: len(kept)] == kept


def other_reason(file: str, line: str) -> str:
    return swapped(line, reason="other") if file == "cases.jsonl" else line


def other_rows(file: str, line: str) -> str:
    return re.sub("0x[0-9a-f]{16}", "0x" + "1" * 16, line) if file == "paths.jsonl" else line


def other_tokens(file: str, line: str) -> str:
    if file != "units.jsonl":
        return line
    value = json.loads(line)
    value["sequences"][0]["ids"][-1] += 1
    return json.dumps(value)


@pytest.mark.parametrize(
    "change", [other_reason, other_rows, other_tokens], ids=lambda x: x.__name__
)
def test_a_retry_that_gives_other_bits_differs_whatever_came_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    losing = once(lambda part: any(file == "units.jsonl" for file, _ in part.lines))
    nodes = Nodes(losing, again(each_line(change)))
    report = verified(tmp_path, monkeypatch, nodes, subject=Toy())
    retries = lines(tmp_path / "run", "retries.jsonl")
    changed = {name for each in retries for name in each["changed"]}
    cases = {case["id"]: case for check in report["checks"] for case in check["cases"]}
    assert report["verdict"] == "differs"
    assert changed
    assert {name for name, case in cases.items() if case["verdict"] == "differs"} == changed
    assert changed < cases.keys()  # those of units that ran again
    for name in changed:
        assert cases[name]["recheck"] == "differs"
        assert "attempt 2 of" in cases[name]["reason"]
    for case in lines(tmp_path / "run", "cases.jsonl"):
        assert case["verdict"] == "holds"  # what came first stands


def test_what_loses_every_machine_comes_to_an_end(
    ran_here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SubjectError, match="its machine was lost 4 times"):
        verified(tmp_path, monkeypatch, Nodes(losing=range(100)))
    verified(tmp_path, monkeypatch, Nodes(), resume=True)
    assert left(tmp_path / "run") == left(ran_here)


def test_workers_that_never_come_end_the_run_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unborn(Nodes):
        def worker(self, need: NodeNeed, node: str) -> StandIn:
            found = super().worker(need, node)
            found.lost = True
            return found

    monkeypatch.setattr(workers, "_LOOK_S", 0.0)
    monkeypatch.setattr(workers, "_NOBODY_S", 0.0)
    nodes = Unborn()
    with pytest.raises(SubjectError, match="were lost 4 times on each node before they computed"):
        verified(tmp_path, monkeypatch, nodes)
    assert Counter(each.node for each in nodes.begun) == {"node-1": 4, "node-2": 4}


def test_a_control_that_a_retry_gives_otherwise_is_not_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losing = once(lambda part: any("controls" in file for file, _ in part.lines))
    change = again(
        each_line(lambda file, line: swapped(line, seen="else") if "controls" in file else line)
    )
    report = verified(tmp_path, monkeypatch, Nodes(losing, change, there=ALONE), subject=Toy())
    told = [r["changed"] for r in lines(tmp_path / "run", "retries.jsonl") if r["changed"]]
    changed = {name for names in told for name in names}
    assert changed
    told_so = {
        f"{control['name']} of {control['relation']}"
        for control in report["controls"]
        if not control["caught"] and "attempt 2 of" in control["seen"]
    }
    assert told_so == changed


def test_a_file_that_a_retry_gives_otherwise_stays_as_it_came_first(
    ran_here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()

    def emptied(worker: int, part: SentPart) -> SentPart:
        files = [(name, b"" if name in seen else content) for name, content in part.files]
        seen.update(name for name, _ in files)
        return replace(part, files=tuple(files))

    nodes = Nodes(once(lambda part: part.files), emptied, there=ALONE)
    verified(tmp_path, monkeypatch, nodes)
    found, first = left(tmp_path / "run"), left(ran_here)
    del found["run.json"], first["run.json"]  # where a case that held differs now
    assert found == first
    told = [r for r in lines(tmp_path / "run", "retries.jsonl") if r["changed"]]
    assert all("has other bits than before" in each["why"] for each in told)
    assert told
