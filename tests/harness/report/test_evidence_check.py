"""A run folder that was edited, copied together or damaged is not believed: the line is named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toy
from toy import Toy

from kvparity.report.run_dir import RunFolderError
from kvparity.run.verify import verify
from kvparity_contracts.loader import load

Change = Callable[[list[dict[str, Any]]], None]


def of(relation: str, verdict: str, change: dict[str, Any]) -> Change:
    """Change the first line of a relation with a verdict."""

    def edit(lines: list[dict[str, Any]]) -> None:
        line = next(e for e in lines if (e["relation"], e["verdict"]) == (relation, verdict))
        line.update(change)

    return edit


def first(change: dict[str, Any]) -> Change:
    return lambda lines: lines[0].update(change)


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("contract") / "toy.json"
    file.write_text(json.dumps(toy.document()))
    return file


def run(contract: Path, folder: Path, subject: Toy, *, resume: bool) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kvparity.run.worker.subject_of", lambda job, numerics: subject)
        return verify(
            load(contract), device="cpu", folder=folder, jobs=1, resume=resume, command="",
            progress=lambda *_: None,
        ).document()  # fmt: skip


@pytest.fixture(scope="module")
def finished(contract: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run folders by what the toy did: one that holds, one whose batched rows differ."""
    found = {}
    for name, defects in {"good": (), "bad": ("batch-dependent",)}.items():
        found[name] = tmp_path_factory.mktemp("runs") / name
        run(contract, found[name], Toy(*defects), resume=False)
    return found


def edited(source: Path, folder: Path, file: str, change: Change) -> Path:
    shutil.copytree(source, folder)
    path = folder / file
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


CASES: dict[str, tuple[str, Change, str]] = {
    "a difference called equal": (
        "bad", of("invariance", "differs", {"verdict": "holds"}),
        r"it holds, and differing_tokens is \d+",
    ),
    "over the limit": (
        "good", of("accuracy", "holds", {"max_abs_dlogp": 7.5}),
        "max_abs_dlogp is not within its limit",
    ),
    "no first divergence": (
        "bad", of("invariance", "differs", {"first_divergence": None}),
        "it differs, and has no first divergence",
    ),
    "accuracy that kept nothing": (
        "good",
        lambda lines: next(e for e in lines if e["relation"] == "accuracy").pop("evidence"),
        "it holds, and names no file in accuracy/",
    ),
    "accuracy with another file": (
        "good", of("accuracy", "holds", {"evidence": "failures/c012.safetensors"}),
        r"its evidence is 'failures/c012.safetensors', and accuracy/c\d+.safetensors is its file",
    ),
    "accuracy without a measure over its limit": (
        "good", of("accuracy", "holds", {"verdict": "differs"}),
        "it differs, and is within every limit",
    ),
    "another file": (
        "bad", of("invariance", "differs", {"evidence": "../x.safetensors"}),
        "its evidence is '../x.safetensors'",
    ),
    "an unknown verdict": ("good", first({"verdict": "fine"}), "verdict is 'fine', and should be"),
    "another path": ("good", first({"path": "permuted"}), "path is 'permuted', and"),
    "another format": ("good", first({"dtype": "float16"}), "dtype is 'float16'"),
    "another check": ("good", first({"check": "close to float64"}), "check is 'close to float64'"),
    "another relation": ("good", first({"relation": "cache"}), "relation is 'cache', and"),
    "another device": ("good", first({"device": "sm_90"}), "device is 'sm_90', and None"),
    "another cache": ("good", first({"kv_cache": "float16"}), "kv_cache is 'float16', and"),
    "another workload": ("good", first({"workload": "long"}), "workload is 'long', and"),
    "another reference": ("good", first({"reference": "decode"}), "reference is 'decode', and"),
    "another temperature": ("good", first({"temperature": 0.7}), "temperature is 0.7, and 1.0"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_case_that_contradicts_itself_is_refused(
    name: str, finished: dict[str, Path], contract: Path, tmp_path: Path
) -> None:
    which, change, words = CASES[name]
    folder = edited(finished[which], tmp_path / "run", "cases.jsonl", change)
    before = (folder / "cases.jsonl").read_bytes()
    with pytest.raises(RunFolderError, match=words) as error:
        run(contract, folder, Toy(), resume=True)
    assert str(folder / "cases.jsonl") in str(error.value)
    assert "remove the line" in str(error.value)
    assert (folder / "cases.jsonl").read_bytes() == before


def test_the_unedited_folders_are_believed(
    finished: dict[str, Path], contract: Path, tmp_path: Path
) -> None:
    for name, verdict in {"good": "holds", "bad": "differs"}.items():
        folder = edited(finished[name], tmp_path / name, "cases.jsonl", lambda lines: None)
        assert run(contract, folder, Toy(), resume=True)["verdict"] == verdict


def test_a_run_is_not_resumed_on_a_path_that_cannot_be(
    finished: dict[str, Path], contract: Path, tmp_path: Path
) -> None:
    folder = edited(finished["good"], tmp_path / "run", "paths.jsonl", first({"probed": "no"}))
    with pytest.raises(RunFolderError, match=r"paths\.jsonl:1: probed is 'no'"):
        run(contract, folder, Toy(), resume=True)


def test_a_path_whose_line_is_removed_runs_again(
    finished: dict[str, Path], contract: Path, tmp_path: Path
) -> None:
    before = json.loads((finished["good"] / "run.json").read_text())
    folder = edited(finished["good"], tmp_path / "run", "paths.jsonl", lambda lines: lines.clear())
    for name in ("units.jsonl", "cases.jsonl"):
        (folder / name).write_text("")
    after = run(contract, folder, Toy(), resume=True)
    assert after["checks"] == before["checks"]


@pytest.mark.parametrize("repeats", [{"decode": True}, {"batched": "yes"}, ["batched"]])
def test_repeats_of_another_path_are_refused(
    repeats: Any, finished: dict[str, Path], contract: Path, tmp_path: Path
) -> None:
    def edit(lines: list[dict[str, Any]]) -> None:
        line = next(line for line in lines if "repeats" in line.get("invariance", {}))
        assert "decode" not in (line["path"], line["reference"])
        line["invariance"]["repeats"] = repeats

    folder = edited(finished["bad"], tmp_path / "run", "cases.jsonl", edit)
    with pytest.raises(RunFolderError, match=r"repeats(\.batched)? is"):
        run(contract, folder, Toy(), resume=True)


def test_faults_without_repeats_are_no_obstacle(
    finished: dict[str, Path], contract: Path, tmp_path: Path
) -> None:
    def edit(lines: list[dict[str, Any]]) -> None:
        line = next(line for line in lines if "repeats" in line.get("invariance", {}))
        line["invariance"] = {"faults": ["a row that is nobody's is NaN"]}
        lines.pop()

    folder = edited(finished["bad"], tmp_path / "run", "cases.jsonl", edit)
    (folder / "units.jsonl").write_text("")
    assert run(contract, folder, Toy("batch-dependent"), resume=True)["verdict"] == "differs"


@pytest.mark.parametrize("file", ["cases.jsonl", "units.jsonl", "controls.jsonl"])
def test_a_line_that_stands_twice_is_refused_with_both_places(
    file: str, finished: dict[str, Path], contract: Path, tmp_path: Path
) -> None:
    folder = edited(finished["good"], tmp_path / "run", file, lambda lines: lines.append(lines[0]))
    last = len((folder / file).read_text().splitlines())
    with pytest.raises(RunFolderError, match=rf"{file}:{last} holds .*, which line 1 holds"):
        run(contract, folder, Toy(), resume=True)


@pytest.mark.parametrize(
    ("file", "key"), [("cases.jsonl", "id"), ("units.jsonl", "unit"), ("controls.jsonl", "name")]
)
def test_what_the_contract_does_not_plan_is_refused(
    file: str, key: str, finished: dict[str, Path], contract: Path, tmp_path: Path
) -> None:
    folder = edited(finished["good"], tmp_path / "run", file, first({key: "c999"}))
    with pytest.raises(RunFolderError, match=rf"{file}:1 holds .*c999.*does not plan"):
        run(contract, folder, Toy(), resume=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"caught": True, "seen": "holds: every bit is equal"}, "caught as a difference"),
        ({"caught": "yes"}, "caught is 'yes'"),
        ({"expected": "holds"}, "expected is 'holds'"),
        ({"expected": "void", "seen": "void: lengths"}, "expected is 'void', and 'differs' is"),
        ({"by": "close to float64"}, "by is 'close to float64', and 'decode reduces"),
        ({"workload": "long"}, "workload is 'long', and 'padded' is planned"),
        ({"path": "permuted"}, "path is 'permuted', and 'decode' is planned"),
        ({"numerics": {"execution": "float16", "kv_cache": "float32"}}, "numerics is"),
    ],
)
def test_a_control_that_contradicts_itself_is_refused(
    change: dict[str, Any], words: str, finished: dict[str, Path], contract: Path, tmp_path: Path
) -> None:
    def edit(lines: list[dict[str, Any]]) -> None:
        next(line for line in lines if line["name"] == "stale-slot").update(change)

    folder = edited(finished["good"], tmp_path / "run", "controls.jsonl", edit)
    with pytest.raises(RunFolderError, match=words):
        run(contract, folder, Toy(), resume=True)


@pytest.mark.parametrize(
    ("sequences", "words"),
    [
        ([], r"sequences is \[\], and should have"),
        ([{"id": "a", "prompt": 1, "ids": [1, -2]}], r"ids\[1\] is -2, and should"),
        ([{"id": "a", "prompt": 9, "ids": [1, 2]}], "2 ids and a prompt of 9"),
    ],
)
def test_tokens_that_cannot_be_are_refused(
    sequences: list[Any], words: str, finished: dict[str, Path], contract: Path, tmp_path: Path
) -> None:
    folder = edited(finished["good"], tmp_path / "run", "units.jsonl",
                    first({"sequences": sequences}))  # fmt: skip
    with pytest.raises(RunFolderError, match=words):
        run(contract, folder, Toy(), resume=True)


@pytest.mark.parametrize("kept", ["failures", "accuracy"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "foreign"])
def test_a_file_of_a_case_that_is_not_whole_is_refused(
    damage: str, kept: str, finished: dict[str, Path], contract: Path, tmp_path: Path
) -> None:
    folder = edited(finished["bad"], tmp_path / "run", "cases.jsonl", lambda lines: None)
    file = sorted((folder / kept).glob("*.safetensors"))[0]
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        os.truncate(file, file.stat().st_size - 8)
    else:
        file.write_bytes(b"not tensors")
    words = {"missing": "is missing", "truncated": "cannot be read", "foreign": "cannot be read"}
    with pytest.raises(RunFolderError, match=rf"{file.name} {words[damage]}"):
        run(contract, folder, Toy(), resume=True)


def test_a_removed_line_is_run_again_and_the_report_is_as_before(
    finished: dict[str, Path], contract: Path, tmp_path: Path
) -> None:
    folder = edited(finished["bad"], tmp_path / "run", "cases.jsonl", lambda lines: lines.pop(1))
    before = json.loads((folder / "run.json").read_text())
    after = run(contract, folder, Toy("batch-dependent"), resume=True)
    assert after["checks"] == before["checks"]
    assert after["controls"] == before["controls"]


def test_a_resumed_run_touches_no_file_of_others(
    finished: dict[str, Path], contract: Path, tmp_path: Path
) -> None:
    folder = edited(finished["good"], tmp_path / "run", "cases.jsonl", lambda lines: None)
    (folder / "mine.jsonl").write_text('{"half": ')
    run(contract, folder, Toy(), resume=True)
    assert (folder / "mine.jsonl").read_text() == '{"half": '
