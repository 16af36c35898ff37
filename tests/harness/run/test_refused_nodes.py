"""What is refused of a run on nodes: what was asked, what a node has, what a node sends."""

from __future__ import annotations

import pickle
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from node_stand_ins import Change, Nodes
from nodes_runs import ALONE, each_line, swapped, verified
from toy import Toy, contract

from kvparity.cli.main import main
from kvparity.core import own_source, versions
from kvparity.core.errors import RunFolderError, SubjectError, UnsupportedError
from kvparity.core.exit_codes import ExitCode
from kvparity.run.on_ray import begin, process_here
from kvparity.run.on_ray.node import Serving
from kvparity.run.on_ray.request import need_of
from kvparity.run.on_ray.settings import not_there
from kvparity.run.worker import Job

REFUSED: dict[str, tuple[Change, str]] = {
    "a case twice": (
        lambda task, part: replace(part, lines=part.lines + part.lines[-1:]),
        "twice",
    ),
    "a case of no task": (
        each_line(lambda file, line: swapped(line, id="c999") if file == "cases.jsonl" else line),
        "which it was not asked for",
    ),
    "no JSON": (each_line(lambda file, line: line[:-1]), "that is no object of JSON: "),
    "no object": (each_line(lambda file, line: "[1]"), "that is no object of JSON: "),
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


def test_a_folder_that_was_edited_is_told_as_on_one_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified(tmp_path, monkeypatch, None)
    file = tmp_path / "run/cases.jsonl"
    first, *others = file.read_text().splitlines(keepends=True)
    file.write_text("".join([swapped(first, relation="none") + "\n", *others]))
    with pytest.raises(RunFolderError, match=r"cases\.jsonl:1"):
        verified(tmp_path, monkeypatch, Nodes(), resume=True)


def test_a_node_that_cannot_write_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    serving = Serving("node", tmp_path / "file")
    serving.give(1, lambda: pytest.fail("it has no folder"), ())
    while not (parts := list(serving.new())):
        time.sleep(0.01)
    (part,) = parts
    assert part.over
    assert part.error is not None
    assert part.error["error"] == "folder"
    assert f"{tmp_path}/file/1 could not be written: Not a directory" in part.error["words"]


def test_an_error_of_the_subject_is_told_once_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = Nodes(there=ALONE)
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


def test_a_node_with_other_source_of_the_same_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_here, "source_digest", lambda: "0" * 64)
    with pytest.raises(UnsupportedError, match=r"has other source files of kvparity \(digest 000"):
        verified(tmp_path, monkeypatch, Nodes())


def test_the_digest_is_of_names_and_contents_of_python_files(tmp_path: Path) -> None:
    def digest(**files: str) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir()))) / "package"
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name.replace("_", ".")).write_text(text)
        return own_source.digest_of([folder])

    found = digest(a_py="1", b_py="2")
    assert digest(b_py="2", a_py="1", c_txt="3") == found
    others = {digest(a_py="1", b_py="3"), digest(a_py="1", c_py="2"), digest(a_py="1")}
    assert len(others | {found}) == 4
    assert own_source.source_digest() == own_source.source_digest()


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
    nodes = Nodes(there={})
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


def test_a_checkpoint_that_a_node_does_not_have_is_told(tmp_path: Path) -> None:
    assert not_there([str(tmp_path)]) is None
    words = not_there([str(tmp_path), str(tmp_path / "model")])
    assert words == (
        f"has no {tmp_path / 'model'}: with --ray, checkpoints and other files of a subject must "
        "be readable at the same path on every node"
    )
