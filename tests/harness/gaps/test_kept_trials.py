"""Trials that are kept are those of the same files, versions and device: nothing else is reused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kvparity.core.errors import UnsupportedError
from kvparity.gaps import trials
from kvparity.gaps.explain import FlipTrial, Numbers
from kvparity.gaps.factors import of_candidate

STALE = "stale"
BASE = FlipTrial((), "bfloat16, sdpa", Numbers(0.5, 0.25, 0.0))
FLIPPED = FlipTrial(("dtype float32",), "float32, sdpa", None, "no memory")
OF_STALE = FlipTrial(of_candidate(STALE)[:1], f"bfloat16, sdpa, weights {STALE}", None, "damaged")
ALL = [BASE, FLIPPED, OF_STALE]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("r.jsonl").write_text("recorded")
    for name in ("model", STALE):
        Path(name).mkdir()
        (Path(name) / "config.json").write_text(f'{{"of": "{name}"}}')
        (Path(name) / "model.safetensors").write_bytes(b"weights of " + name.encode())
    return tmp_path


def _source(candidates: tuple[str, ...] = (STALE,), ran_on: str = "cpu") -> trials.TrialSource:
    return trials.source(Path("r.jsonl"), [Path("model")], candidates, ran_on)


def _same_size_and_time(path: Path) -> None:
    """Another file of another checkpoint, unpacked from an archive that sets the times."""
    times = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _nothing() -> None:
    for each in ("r.jsonl", "model/model.safetensors"):
        os.utime(each, ns=(1, 1))
    Path("model/README.md").write_text("read")
    Path("model/trials.jsonl").write_text("these")


CHANGES: dict[str, tuple[Callable[[], object], list[FlipTrial]]] = {
    "nothing": (_nothing, ALL),
    "the recording": (lambda: Path("r.jsonl").write_text("rerecord"), []),
    "the config": (lambda: Path("model/config.json").write_text("{}"), []),
    "weights": (lambda: _same_size_and_time(Path("model/model.safetensors")), []),
    "pickled weights": (lambda: Path("model/pytorch_model.bin").write_bytes(b"w"), []),
    "an adapter": (lambda: Path("model/adapter_model.safetensors").write_bytes(b"w"), []),
    "quantised weights": (lambda: Path("model/q4.gguf").write_bytes(b"w"), []),
    "a candidate's weights": (
        lambda: _same_size_and_time(Path("stale/model.safetensors")),
        [BASE, FLIPPED],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_tried_again(change: str, folder: Path) -> None:
    for each in ALL:
        trials.append(Path("t.jsonl"), _source(), each)
    make, known = CHANGES[change]
    make()
    assert trials.read(Path("t.jsonl"), _source()) == known


def test_other_versions_and_more_candidates(folder: Path) -> None:
    """A folder of other weights is added to what is known, in whatever order."""
    for each in (BASE, FLIPPED):
        trials.append(Path("t.jsonl"), _source(()), each)
    trials.append(Path("t.jsonl"), _source(), OF_STALE)
    assert trials.read(Path("t.jsonl"), _source(("model", STALE))) == ALL
    assert trials.read(Path("t.jsonl"), _source(())) == [BASE, FLIPPED]
    assert trials.read(Path("t.jsonl"), _source(ran_on="cuda")) == []


def test_what_cannot_be_read_is_told(folder: Path) -> None:
    with pytest.raises(UnsupportedError, match="--trials model cannot be read: Is a directory"):
        trials.read(Path("model"), _source())
    Path("r.jsonl").unlink()
    with pytest.raises(UnsupportedError, match=r"r.jsonl cannot be read: No such file"):
        _source()
