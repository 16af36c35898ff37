"""A run whose tasks other machines compute: its evidence is that of a run on this one."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from node_stand_ins import Nodes
from nodes_runs import ALONE, left, lines, verified
from toy import Toy, contract
from toy_verification import BITS

from kvparity.core import versions
from kvparity.core.errors import SubjectError
from kvparity.core.isolation.inside import here
from kvparity.core.isolation.pool import Here
from kvparity.core.own_source import source_digest
from kvparity.run import verify as running
from kvparity.run import worker
from kvparity.run.on_ray import begin, process_here, workers
from kvparity.run.on_ray.node import Serving
from kvparity.run.on_ray.pool import Dealt
from kvparity.run.on_ray.request import NodeNeed, RayRequest
from kvparity.run.on_ray.sent import SentJob, SentPart
from kvparity.run.on_ray.sources import sources_of
from kvparity.run.worker import Job
from kvparity.subjects.pair.callables import load_callable
from kvparity_contracts.loader import load

AGAIN = {"name": "again", "relation": "reproduction", "paths": ["decode"], "across": "nodes"}


def test_nodes_give_the_evidence_of_this_machine(
    ran_here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = Nodes()
    report = verified(tmp_path, monkeypatch, nodes)
    assert left(tmp_path / "run") == left(ran_here)
    assert report["verdict"] == "differs"
    assert set(nodes.needs) == {NodeNeed()}
    for case in lines(tmp_path / "run", "cases.jsonl"):
        place = case["place"]
        assert (place["attempts"], place["lost"], place["uuid"]) == (1, [], None)
        assert place["node"] in ("node-1", "node-2")
        assert place["versions"] == versions.versions()
        assert place["device"] == report["environment"]["device_name"]
    assert not (tmp_path / "run/retries.jsonl").exists()


def test_one_process_of_each_place_serves_all_phases_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = Nodes()
    verified(tmp_path, monkeypatch, nodes)
    assert [each.node for each in nodes.begun] == ["node-1", "node-2"]
    for each in nodes.begun:
        assert {pool for pool, _ in each.given} == {1}
        assert each.finished == {1}, "it was asked to end, and seen to"
    units = sum(count for each in nodes.begun for _, count in each.given[:2])
    assert units >= len(lines(tmp_path / "run", "units.jsonl"))


@pytest.mark.parametrize(("jobs", "workers"), [(1, 1), (2, 2), (None, 3)])
def test_no_more_workers_than_tasks_places_and_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int | None, workers: int
) -> None:
    def stop(worker: int, part: SentPart) -> SentPart:
        raise KeyboardInterrupt  # in the first phase: three units are all there is to compute

    nodes = Nodes(change=stop, there={"node-1": 2, "node-2": 9})
    with pytest.raises(KeyboardInterrupt):
        verified(tmp_path, monkeypatch, nodes, request=RayRequest(wait_s=0.0, jobs=jobs))
    assert len(nodes.begun) == workers
    assert {each.node for each in nodes.begun[:2]} == set(["node-1", "node-2"][:workers])
    assert all(each.left for each in nodes.begun), "each is ended"


def test_a_node_that_joins_later_is_used(
    ran_here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_LOOK_S", 0.0)

    def joins(worker: int, part: SentPart) -> SentPart:
        nodes.there["node-9"] = 1
        return part

    nodes = Nodes(change=joins, there=dict(ALONE))
    verified(tmp_path, monkeypatch, nodes)
    assert [each.node for each in nodes.begun] == ["node-1", "node-9"]
    assert nodes.begun[1].given
    assert left(tmp_path / "run") == left(ran_here)


def test_short_tasks_are_given_many_at_a_time_and_long_ones_alone() -> None:
    dealt = Dealt(since=time.monotonic() - 10)
    assert dealt.room(8) == 1, "nothing is known of how long they take"
    dealt.ended = 1
    assert dealt.room(8) == 1
    dealt.ended = 22
    assert dealt.room(8) == 1 + 3
    assert dealt.room(1) == 1 + 1, "others have their share"
    dealt.undertaken.tasks = dict.fromkeys(range(3))  # type: ignore[assignment]
    assert dealt.room(8) == 1


@pytest.mark.parametrize("there", [{"node-1": 2, "node-2": 1}, {"node-1": 3}], ids=["two", "one"])
def test_a_check_across_nodes_is_run_on_other_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: dict[str, int]
) -> None:
    monkeypatch.setattr(
        running, "_recheck", lambda *_: running.Outcome({}, skipped="not in this test")
    )
    nodes = Nodes(there=there)
    with here(False):
        report = verified(tmp_path, monkeypatch, nodes, subject=Toy(), checks=[AGAIN])
    for check in report["checks"]:
        for case in check["cases"]:
            ran = [each["node"] for each in case["reproduction"]["runs"]]
            if len(there) > 1:
                assert (case["verdict"], sorted(ran)) == ("holds", ["node-1", "node-2"])
            else:
                assert (case["verdict"], ran) == ("void", ["node-1", "node-1"])
                assert case["reason"] == (
                    "2 nodes were asked for, and it ran on 1 node (node-1): give --ray a cluster "
                    "with as many nodes that take its tasks"
                )


def test_a_worker_of_ray_imports_little() -> None:
    heavy = {"torch", "numpy", "pydantic", "kvparity_contracts"}
    code = f"import sys, kvparity.run.on_ray.actor; print(sorted({heavy!r} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout == "[]\n"


def test_only_what_is_whole_is_sent(tmp_path: Path) -> None:
    asked, may_end = threading.Event(), threading.Event()

    def common() -> SentJob:
        asked.set()
        may_end.wait(60)
        raise KeyError("no job")

    serving = Serving("node", tmp_path)
    serving.give(1, common, ())
    assert asked.wait(60)
    run = tmp_path / "1/run"
    (run / "accuracy").mkdir()
    for name in (".tmpAbC", "c1.safetensors.part", "c2.safetensors"):
        (run / "accuracy" / name).write_bytes(b"some")
    (run / "paths.jsonl").write_text('{"a": 1}\n{"b": ')
    (part,) = serving.new()
    assert part.lines == (("paths.jsonl", '{"a": 1}'),)
    assert part.files == (("accuracy/c2.safetensors", b"some"),)
    with (run / "paths.jsonl").open("a") as opened:
        opened.write("2}\n")
    (part,) = serving.new()
    assert (part.lines, part.files) == ((("paths.jsonl", '{"b": 2}'),), ())
    may_end.set()
    while not (parts := list(serving.new())):
        time.sleep(0.01)
    assert parts[0].over
    assert not run.exists()


def test_a_worker_that_leaves_ends_its_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, struck = threading.Event(), threading.Event()

    class Long(Here):
        def __init__(self, *_: object, first: object) -> None: ...

        def run(self, tasks: object) -> Iterator[Any]:
            began.set()
            struck.wait(60)
            raise SubjectError("its process is gone")

        def strike(self) -> None:
            struck.set()

    monkeypatch.setattr(process_here, "Apart", Long)
    shared = SentJob(b"", "", versions.versions(), source_digest(), None, (), (), 1.0)
    serving = Serving("node", tmp_path)
    serving.give(1, lambda: shared, ())
    assert began.wait(60)
    serving.leave()
    assert list(serving.parts()) == [SentPart()]
    assert struck.is_set()


@pytest.fixture
def stay(monkeypatch: pytest.MonkeyPatch) -> Iterator[ExitStack]:
    """What a process of a node does as long as it lives."""
    monkeypatch.setattr(worker, "start", lambda: None)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = {*sys.modules}
    with ExitStack() as found:
        monkeypatch.setattr(begin, "_stay", found)
        yield found
    for name in sys.modules.keys() - before:
        del sys.modules[name]


def began(folder: Path, texts: dict[str, str], pair: dict[str, str]) -> tuple[Path, set[str]]:
    """Begin on a node that has nothing of a contract's folder; which that was, and what was sent
    of it."""
    base = folder / "own"
    for name, text in texts.items():
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text(text)
    document = {
        "version": 1, "name": "sent",
        "subject": pair | {"kind": "attention", "heads": {"query": 2, "kv": 1, "dim": 4}},
        "numerics": {"execution": "float32"},
        "workloads": [{"name": "w", "prompt_tokens": [2], "generate": 1}],
        "checks": [BITS],
    }  # fmt: skip
    (base / "contract.json").write_text(json.dumps(document))
    sent = sources_of(load(base / "contract.json"))
    shutil.rmtree(base)
    copies = {}
    for each in sent:
        copy = folder / "node" / each.path.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(each.text)
        copies[each.path] = str(copy)
    begin.begin(pickle.dumps(Job(contract(), base, "cpu", folder)), str(folder), copies)
    return base, {Path(each.path).relative_to(base).as_posix() for each in sent}


@pytest.mark.usefixtures("stay")
def test_a_pair_runs_where_its_folder_is_not(tmp_path: Path) -> None:
    """Its sources, what lies beside them, and the packages that they are in, go to the node."""
    texts = {
        "pair.py": "import beside_pair\ndef prefill(): return beside_pair.NAME",
        "beside_pair.py": "NAME = 'beside'",
        "package/__init__.py": "NAME = 'package'",
        "package/kernels.py": "from package import NAME\ndef decode(): return NAME",
        "notes.txt": "not sent",
    }
    pair = {"prefill": "pair.py:prefill", "decode": "package.kernels:decode"}
    base, sent = began(tmp_path, texts, pair)
    assert sent == texts.keys() - {"notes.txt"}
    assert load_callable("pair.py:prefill", base)() == "beside"
    assert load_callable("package.kernels:decode", base)() == "package"


@pytest.mark.usefixtures("stay")
@pytest.mark.parametrize("init", [{"own_package/__init__.py": ""}, {}], ids=["package", "folder"])
def test_a_pair_in_a_package_runs_where_its_folder_is_not(
    tmp_path: Path, init: dict[str, str]
) -> None:
    texts = init | {"own_package/kernels.py": "def prefill(): return 1\ndef decode(): return 2"}
    names = {"prefill": "own_package.kernels:prefill", "decode": "own_package.kernels:decode"}
    base, sent = began(tmp_path, texts, names)
    assert sent == texts.keys()
    assert [load_callable(each, base)() for each in names.values()] == [1, 2]


@pytest.mark.usefixtures("stay")
def test_what_lies_beside_a_pair_comes_before_what_a_node_has_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed/of_both.py").write_text("NAME = 'installed'")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    texts = {
        "pair.py": "import of_both\ndef prefill(): return of_both.NAME",
        "of_both.py": "NAME = 'beside'",
    }
    base, _ = began(tmp_path, texts, {"prefill": "pair.py:prefill", "decode": "pair.py:prefill"})
    assert load_callable("pair.py:prefill", base)() == "beside"
