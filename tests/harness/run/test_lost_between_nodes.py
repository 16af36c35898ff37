"""Workers that are lost while another pool works or before they came, and what a kill left."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import node_stand_ins
import pytest
from node_stand_ins import Nodes, StandIn
from nodes_runs import ALONE, LINES, left, lines, once, verified
from toy import Toy

from kvparity.core.isolation.inside import here
from kvparity.run import verify as running
from kvparity.run.on_ray import workers
from kvparity.run.on_ray.cluster import RayTask
from kvparity.run.on_ray.request import NodeNeed
from kvparity.run.on_ray.sent import SentPart

AGAIN = {"name": "again", "relation": "reproduction", "paths": ["decode"]}


@pytest.fixture
def not_rechecked(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = running.Outcome({}, skipped="not in this test")
    monkeypatch.setattr(running, "_recheck", lambda *_: nothing)


@pytest.mark.usefixtures("not_rechecked")
def test_a_worker_that_is_lost_while_another_pool_works_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_stand_ins, "MOST_S", 5.0)
    nodes = Nodes(once(lambda part: part.pool == 2), there=ALONE)
    with here(False):
        verified(tmp_path, monkeypatch, nodes, subject=Toy(), checks=[AGAIN])
    cases = lines(tmp_path / "run", "cases.jsonl")
    assert {case["verdict"] for case in cases} == {"holds"}
    (retry,) = lines(tmp_path / "run", "retries.jsonl")
    assert retry["task"] in {case["id"] for case in cases}


@pytest.mark.usefixtures("not_rechecked")
def test_a_node_whose_first_worker_is_lost_is_still_another_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LostAtFirst(Nodes):
        def worker(self, need: NodeNeed, node: str) -> StandIn:
            found = super().worker(need, node)
            found.lost = node == "node-2" and [each.node for each in self.begun].count(node) == 1
            return found

        def heard(self, running: Sequence[RayTask]) -> list[RayTask]:
            with suppress(AssertionError):
                return super().heard(running)
            return []

    monkeypatch.setattr(node_stand_ins, "MOST_S", 0.2)
    monkeypatch.setattr(workers, "_LOOK_S", 3.0)
    asked = [AGAIN | {"across": "nodes"}]
    with here(False):
        verified(tmp_path, monkeypatch, LostAtFirst(), subject=Toy(), checks=asked)
    for case in lines(tmp_path / "run", "cases.jsonl"):
        ran = sorted(each["node"] for each in case["reproduction"]["runs"])
        assert (case["verdict"], ran) == ("holds", ["node-1", "node-2"])


def test_a_file_that_a_kill_left_without_its_case_is_written_again(
    ran_here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(task: int, part: SentPart) -> SentPart:
        if any(lines(tmp_path / "run", name) for name in LINES):
            raise KeyboardInterrupt
        return part

    with pytest.raises(KeyboardInterrupt):
        verified(tmp_path, monkeypatch, Nodes(change=stop))
    there = {case["id"] for case in lines(tmp_path / "run", "cases.jsonl")}
    of_all = {file.stem for file in (ran_here / "failures").glob("*.safetensors")}
    assert of_all - there
    for name in of_all - there:
        (tmp_path / f"run/failures/{name}.safetensors").write_bytes(b"of another attempt")
    verified(tmp_path, monkeypatch, Nodes(), resume=True)
    assert left(tmp_path / "run") == left(ran_here)
