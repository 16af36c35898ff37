"""A run whose tasks other machines compute: one writer, nothing lost, nothing counted twice."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import node_stand_ins
import pytest
import toy_verification
from node_stand_ins import Change, Nodes
from toy import Toy, contract
from toy_verification import BITS, NEAR

from kvparity.cli.main import main
from kvparity.core import versions
from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.core.exit_codes import ExitCode
from kvparity.run import worker
from kvparity.run.on_ray import begin
from kvparity.run.on_ray.machines import OnRay
from kvparity.run.on_ray.request import NodeNeed, RayRequest, need_of
from kvparity.run.on_ray.sent import SentPart
from kvparity.run.on_ray.settings import not_there
from kvparity.run.on_ray.sources import sources_of
from kvparity.run.worker import Job
from kvparity.subjects.pair.callables import load_callable
from kvparity_contracts.loader import load

LINES = ("cases.jsonl", "controls.jsonl", "paths.jsonl", "units.jsonl")
VARY = {"seconds", "elapsed_s", "place", "run_dir", "jobs"}
WORK = {
    "checks": [BITS, NEAR],
    "workloads": [
        {"name": "a", "prompt_tokens": [3, 5], "generate": 3},
        {"name": "b", "prompt_tokens": [4], "generate": 3},
        {"name": "c", "prompt_tokens": [6], "generate": 2},
    ],
}
OFF = Toy("batch-dependent")


def verified(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    nodes: Nodes | None,
    request: RayRequest | None = None,
    *,
    resume: bool = False,
    subject: Toy = OFF,
) -> dict[str, Any]:
    """The report of a run on nodes; without any, here."""
    folder.mkdir(exist_ok=True)
    more: Any = {}
    if nodes is not None:
        node_stand_ins.stand_in(monkeypatch)
        more["pools"] = lambda loaded: OnRay(nodes, request or RayRequest(wait_s=0.0), loaded)
    return toy_verification.verify(folder, monkeypatch, subject, resume=resume, **more, **WORK)


def lasting(value: Any) -> Any:
    """A value less times and places."""
    if isinstance(value, dict):
        return {key: lasting(each) for key, each in value.items() if key not in VARY}
    return [lasting(each) for each in value] if isinstance(value, list) else value


def left(run: Path) -> dict[str, Any]:
    """What a run folder holds, less times and places."""
    report = (run / "run.json").read_text().replace(str(run.parent), "")
    found: dict[str, Any] = {"run.json": lasting(json.loads(report))}
    for name in LINES:
        found[name] = sorted(json.dumps(lasting(each)) for each in lines(run, name))
    for file in run.rglob("*.safetensors"):
        found[str(file.relative_to(run))] = file.read_bytes()
    return found


def lines(run: Path, name: str) -> list[dict[str, Any]]:
    file = run / name
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of this machine, left alone."""
    folder = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        verified(folder, patch, None)
    return folder / "run"


def test_nodes_give_the_evidence_of_this_machine(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = Nodes()
    report = verified(tmp_path, monkeypatch, nodes)
    assert left(tmp_path / "run") == left(here)
    assert report["verdict"] == "differs"
    assert {need for need, _ in nodes.begun} == {NodeNeed()}
    assert [count for _, count in nodes.begun][:2] == [2, 1]  # three units in two places
    for case in lines(tmp_path / "run", "cases.jsonl"):
        place = case["place"]
        assert (place["attempts"], place["lost"], place["uuid"]) == (1, [], None)
        assert place["node"] in ("node-1", "node-2")
        assert place["versions"] == versions.versions()
        assert place["device"] == report["environment"]["device_name"]
    assert not (tmp_path / "run/retries.jsonl").exists()


@pytest.mark.parametrize("losing", [(0,), (1,), (2, 5), (1, 3, 4)], ids=str)
def test_a_lost_machine_loses_nothing_and_counts_nothing_twice(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, losing: tuple[int, ...]
) -> None:
    verified(tmp_path, monkeypatch, Nodes(losing))
    assert left(tmp_path / "run") == left(here)
    retries = lines(tmp_path / "run", "retries.jsonl")
    assert len(retries) >= len(losing)  # more where a second unit had begun to send
    assert all(each["why"] == "NodeDiedError: it is gone" for each in retries)
    assert all(each["changed"] == [] for each in retries)
    again = [each["place"] for each in lines(tmp_path / "run", "cases.jsonl")]
    told = {each["attempts"]: each["lost"] for each in again if each["attempts"] > 1}
    assert all(words == ["NodeDiedError: it is gone"] * (n - 1) for n, words in told.items())


@pytest.mark.parametrize("nodes", [True, False], ids=["on nodes", "here"])
def test_a_run_on_nodes_that_ended_early_goes_on_anywhere(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: bool
) -> None:
    def stop(task: int, part: SentPart) -> SentPart:
        if sum(map(len, (lines(tmp_path / "run", name) for name in LINES))):
            raise KeyboardInterrupt
        return part

    with pytest.raises(KeyboardInterrupt):
        verified(tmp_path, monkeypatch, Nodes(change=stop))
    kept = lines(tmp_path / "run", "cases.jsonl")
    assert 0 < len(kept) < len(lines(here, "cases.jsonl"))
    verified(tmp_path, monkeypatch, Nodes() if nodes else None, resume=True)
    assert left(tmp_path / "run") == left(here)
    assert lines(tmp_path / "run", "cases.jsonl")[: len(kept)] == kept


def once(wanted: Callable[[SentPart], object]) -> Callable[[SentPart], bool]:
    """The first message that is wanted."""
    left = [True]
    return lambda part: bool(left and wanted(part) and left.pop())


def swapped(text: str, **fields: Any) -> str:
    return json.dumps(json.loads(text) | fields)


def second(change: Callable[[str, str], str | None]) -> Change:
    """The lines of the third task of Ray on, which is the first retry, are other ones."""

    def changed(task: int, part: SentPart) -> SentPart:
        return part if task < 3 else each_line(change)(task, part)

    return changed


def each_line(change: Callable[[str, str], str | None]) -> Change:
    def changed(task: int, part: SentPart) -> SentPart:
        found = [(file, change(file, line)) for file, line in part.lines]
        return replace(part, lines=tuple((file, line) for file, line in found if line is not None))

    return changed


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
    nodes = Nodes(losing, second(change))
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


REFUSED: dict[str, tuple[Change, str]] = {
    "a case twice": (
        lambda task, part: replace(part, lines=part.lines + part.lines[-1:]),
        "twice",
    ),
    "a case of no task": (
        each_line(lambda file, line: swapped(line, id="c999") if file == "cases.jsonl" else line),
        "which it was not asked for",
    ),
    "a line that is none": (
        each_line(lambda file, line: swapped(line, more=1)),
        "is not kvparity's",
    ),
    "a file elsewhere": (
        lambda task, part: replace(part, files=(("failures/../identity.json", b"{}"),)),
        "which no task writes",
    ),
    "a report": (lambda task, part: replace(part, files=(("run.json", b"{}"),)), "no task writes"),
    "an answer twice": (
        lambda task, part: replace(part, answers=part.answers * 2),
        "what it was not asked",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_node_may_not_send_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    change, words = REFUSED[name]
    with pytest.raises(SubjectError, match=words):
        verified(tmp_path, monkeypatch, Nodes(change=change))


def test_what_loses_every_machine_comes_to_an_end(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SubjectError, match="its machine was lost 4 times"):
        verified(tmp_path, monkeypatch, Nodes(losing=range(100)))
    verified(tmp_path, monkeypatch, Nodes(), resume=True)
    assert left(tmp_path / "run") == left(here)


def test_an_error_of_the_subject_is_told_once_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = Nodes(places=1)
    with pytest.raises(SubjectError, match="no such kernel") as error:
        verified(tmp_path, monkeypatch, nodes, subject=Toy("raises"))
    assert len(nodes.begun) == 1
    assert f"its traceback: {tmp_path / 'run/failures'}" in str(error.value)
    assert list((tmp_path / "run/failures").glob("*.traceback.txt"))


def test_a_node_with_other_versions_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = versions.versions()
    answers = [own]
    monkeypatch.setattr(
        "kvparity.core.versions.versions",
        lambda: answers.pop() if answers else own | {"torch": "1.0"},
    )
    with pytest.raises(UnsupportedError, match=r"has torch 1\.0, and the driver has "):
        verified(tmp_path, monkeypatch, Nodes())


@pytest.mark.parametrize("key", ["device_name", "python"])
def test_a_node_with_another_setting_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    there = begin.environment
    monkeypatch.setattr(
        begin,
        "environment",
        lambda *given: there(*given).model_copy(update={key: "another"}),
    )
    with pytest.raises(UnsupportedError, match=f"has {key} 'another', and the run has"):
        verified(tmp_path, monkeypatch, Nodes())


def test_a_device_that_no_node_has_is_an_error_and_runs_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = Nodes(places=0)
    monkeypatch.setattr(
        "kvparity.run.on_ray.cluster.resources", lambda: {"one": {"CPU": 4.0}}, raising=False
    )
    with pytest.raises(UnsupportedError, match="no node of the Ray cluster has 1 CPU"):
        verified(tmp_path, monkeypatch, nodes)
    assert nodes.begun == []


def test_a_gpu_that_ray_gave_and_torch_does_not_see_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: Any = Job(contract(), tmp_path, "cuda", tmp_path)
    monkeypatch.setattr(begin.runtime, "select", lambda device: None)
    with pytest.raises(SubjectError, match="nothing runs on a CPU instead"):
        begin.begin(pickle.dumps(found), str(tmp_path), {})


def again(change: Callable[[Any, SentPart], SentPart]) -> Change:
    """Of what comes a second time, by its name: a file, or a control."""
    seen: set[str] = set()

    def changed(task: int, part: SentPart) -> SentPart:
        names = {name for name, _ in part.files if name.endswith(".safetensors")}
        names |= {json.loads(line)["name"] for file, line in part.lines if "controls" in file}
        old = names & seen
        seen.update(names)
        return change(old, part) if old else part

    return changed


def test_a_control_that_a_retry_gives_otherwise_is_not_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losing = once(lambda part: any("controls" in file for file, _ in part.lines))
    change = again(
        each_line(lambda file, line: swapped(line, seen="else") if "controls" in file else line)
    )
    report = verified(tmp_path, monkeypatch, Nodes(losing, change, places=1), subject=Toy())
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
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def emptied(old: set[str], part: SentPart) -> SentPart:
        files = [(name, b"" if name in old else content) for name, content in part.files]
        return replace(part, files=tuple(files))

    nodes = Nodes(once(lambda part: part.files), again(emptied), places=1)
    verified(tmp_path, monkeypatch, nodes)
    found, first = left(tmp_path / "run"), left(here)
    del found["run.json"], first["run.json"]  # where a case that held differs now
    assert found == first
    told = [r for r in lines(tmp_path / "run", "retries.jsonl") if r["changed"]]
    assert all("has other bits than before" in each["why"] for each in told)
    assert told


def test_a_device_that_is_asked_for_is_part_of_every_task() -> None:
    assert need_of("cuda", None).resources() == {"CPU": 1, "GPU": 1}
    assert need_of("cuda", "H100").resources() == {
        "CPU": 1,
        "GPU": 1,
        "accelerator_type:H100": 0.001,
    }
    assert need_of("cpu", None).resources() == {"CPU": 1}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("--ray-wait 3", "--ray-wait means nothing without --ray"),
        ("--ray-accelerator H100", "--ray-accelerator means nothing without --ray"),
        ("--ray", "add --device cpu or --device cuda"),
        ("--ray --device cuda:1", "add --device cpu or --device cuda"),
        ("--ray --device cuda", "add --no-locate"),
        ("--ray --device cpu --ray-accelerator H100", "means nothing with --device cpu"),
        ("--ray --device cpu --ray-wait 0", "--ray-wait 0: expected seconds"),
        ("--ray ray://there:10001 --device cpu", "not behind Ray's client"),
        ("--ray --device cpu", 'Ray is not installed: pip install "kvparity[ray]"'),
    ],
)
def test_an_option_that_cannot_be_used_is_told(
    given: str, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delenv("KVPARITY_DEVICE", raising=False)
    assert main(["verify", "smoke", *given.split()]) == ExitCode.USAGE
    assert words in capsys.readouterr().err


def test_a_pair_runs_where_its_folder_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sources, what lies beside them, and the packages that they are in, go to the node."""
    base = tmp_path / "own"
    (base / "package").mkdir(parents=True)
    texts = {
        "pair.py": "import beside_pair\ndef prefill(): return beside_pair.NAME",
        "beside_pair.py": "NAME = 'beside'",
        "package/__init__.py": "NAME = 'package'",
        "package/kernels.py": "from package import NAME\ndef decode(): return NAME",
        "notes.txt": "not sent",
    }
    for name, text in texts.items():
        (base / name).write_text(text)
    pair = {"prefill": "pair.py:prefill", "decode": "package.kernels:decode"}
    document = {
        "version": 1, "name": "sent",
        "subject": pair | {"kind": "attention", "heads": {"query": 2, "kv": 1, "dim": 4}},
        "numerics": {"execution": "float32"},
        "workloads": [{"name": "w", "prompt_tokens": [2], "generate": 1}],
        "checks": [BITS],
    }  # fmt: skip
    (base / "contract.json").write_text(json.dumps(document))
    sent = sources_of(load(base / "contract.json"))
    assert {Path(each.path).relative_to(base).as_posix() for each in sent} == texts.keys() - {
        "notes.txt"
    }
    shutil.rmtree(base)
    copies = {}
    for each in sent:
        copy = tmp_path / "node" / each.path.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(each.text)
        copies[each.path] = str(copy)
    monkeypatch.setattr(worker, "start", lambda: None)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with ExitStack() as stay:
        monkeypatch.setattr(begin, "_stay", stay)
        begin.begin(pickle.dumps(Job(contract(), base, "cpu", tmp_path)), str(tmp_path), copies)
        assert load_callable("pair.py:prefill", base)() == "beside"
        assert load_callable("package.kernels:decode", base)() == "package"
    for name in ("package", "package.kernels", "beside_pair"):
        monkeypatch.delitem(sys.modules, name)


def test_a_checkpoint_that_a_node_does_not_have_is_told(tmp_path: Path) -> None:
    assert not_there([str(tmp_path)]) is None
    words = not_there([str(tmp_path), str(tmp_path / "model")])
    assert words == (
        f"has no {tmp_path / 'model'}: with --ray, checkpoints and other files of a subject must "
        "be readable at the same path on every node"
    )
