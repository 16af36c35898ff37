"""The file that a case keeps: whether it is named, whole, and about that case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from run_documents import case
from safetensors.torch import save_file

from kvparity.plan.results import CaseLine
from kvparity.report.failure_file import damage

KEPT = {"invariance": "failures/c.safetensors", "accuracy": "accuracy/c.safetensors"}


def line(relation: str, verdict: str, evidence: str | None) -> CaseLine:
    found = case(id="c", relation=relation, verdict=verdict, tokens=3, evidence=evidence)
    return CaseLine.model_construct(**found)


@pytest.mark.parametrize(
    ("relation", "verdict", "words"),
    [
        ("accuracy", "holds", "names no file in accuracy/"),
        ("invariance", "differs", "names no file in failures/"),
        ("cache", "differs", "names no file in failures/"),
    ],
)
def test_a_verdict_without_its_file_is_told(
    relation: str, verdict: str, words: str, tmp_path: Path
) -> None:
    assert words in str(damage(tmp_path, line(relation, verdict, None)))
    other = {"holds": "differs", "differs": "holds"}[verdict]
    assert damage(tmp_path, line(relation, other, None)) is None


def kept(folder: Path, relation: str, *without: str, index: Any = ((0, 1), (0, 2), (0, 3))) -> Path:
    names = {
        "invariance": ("reference.values", "candidate.values", "reference.digests"),
        "accuracy": ("value", "exact", "column"),
        "cache": ("reference.held", "candidate.held"),
    }[relation]
    path = folder / ("accuracy" if relation == "accuracy" else "failures") / "c.safetensors"
    path.parent.mkdir()
    tensors = {name: torch.zeros(3) for name in names if name not in without}
    save_file({"other": torch.zeros(1), **tensors}, path, metadata={"index": json.dumps(index)})
    return path


FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "values of the reference": ("invariance", ("reference.values",)),
    "values of the path": ("invariance", ("candidate.values",)),
    "digests": ("invariance", ("reference.digests",)),
    "a cache of the reference": ("cache", ("reference.held",)),
    "a cache of the path": ("cache", ("candidate.held",)),
    "what was measured": ("accuracy", ("value",)),
    "what is exact": ("accuracy", ("exact",)),
    "where it is farthest": ("accuracy", ("column",)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_a_case_without_one_of_its_tensors_is_refused(name: str, tmp_path: Path) -> None:
    relation, without = FILES[name]
    found = line(relation, "differs", KEPT.get(relation, KEPT["invariance"]))
    path = kept(tmp_path, relation, *without)
    assert damage(tmp_path, found) == f"{found.evidence} has no {without[0]}"
    path.unlink()
    path.parent.rmdir()
    kept(tmp_path, relation)
    assert damage(tmp_path, found) is None


@pytest.mark.parametrize("relation", ["invariance", "accuracy"])
@pytest.mark.parametrize("index", [((0, 1), (0, 2)), ((0, 1),) * 4, 3])
def test_a_file_of_another_number_of_tokens_is_refused(
    relation: str, index: Any, tmp_path: Path
) -> None:
    kept(tmp_path, relation, index=index)
    many = len(index) if isinstance(index, tuple) else None
    found = line(relation, "differs", KEPT[relation])
    words = f"{KEPT[relation]} holds {many} tokens, and 3 were compared"
    assert damage(tmp_path, found) == words


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    kept(tmp_path, "invariance").unlink()
    (tmp_path / KEPT["invariance"]).mkdir()
    found = damage(tmp_path, line("invariance", "differs", KEPT["invariance"]))
    assert found == f"{KEPT['invariance']} is not a regular file"
