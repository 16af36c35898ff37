"""What a run is about: each thing that may decide its bits, changed alone, refuses its resume.

No case runs here: a run is stopped at its first sign of life, and so is what resumes it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import toy

import kvparity
from kvparity.core import environment, versions
from kvparity.report.run_dir import RunFolderError
from kvparity.run import identity
from kvparity.run.device_switch import with_device
from kvparity.run.invariant_switch import with_invariant
from kvparity.run.verify import verify
from kvparity.tiles import force
from kvparity_contracts.loader import load
from kvparity_kernels import runtime

BITS = {"name": "bits", "relation": "invariance", "paths": ["decode"]}
TEXTS = [{"name": "said", "texts": ["ab"], "generate": 2}]
PAIR = {"kind": "attention", "heads": {"query": 2, "kv": 1, "dim": 4}}
SUBJECTS: dict[str, dict[str, Any]] = {
    "decoder": {"kind": "decoder", "preset": "tiny"},
    "files": PAIR | {"prefill": "mine.py:prefill", "decode": "other.py:decode"},
    "beside": PAIR | {"prefill": "package.deep:prefill", "decode": "package:decode"},
    "installed": PAIR | {"prefill": "elsewhere.deep:prefill", "decode": "elsewhere:decode"},
    "model": {"kind": "transformers", "attention": "eager", "checkpoint": "model"},
    "weights": {"kind": "decoder", "checkpoint": "model"},
}
FILES = (
    "mine.py",
    "other.py",
    "package/__init__.py",
    "package/deep.py",
    "site/elsewhere/__init__.py",
    "site/elsewhere/deep.py",
    "model/config.json",
    "model/weights-1.safetensors",
    "model/weights-2.safetensors",
    "model/spiece.model",
    "model/merges.txt",
    "model/chat_template.jinja",
    "c.json",
)


@dataclass(frozen=True)
class Place:
    """The folder of a contract, and what may be patched."""

    folder: Path
    patch: pytest.MonkeyPatch

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()

    def write(self, name: str, text: str) -> None:
        """Write a file whose time is another even where the clock of the disk is coarse."""
        path = self.folder / name
        before = path.stat().st_mtime_ns
        path.write_text(text)
        os.utime(path, ns=(before + 10**9, before + 10**9))


Change = Callable[[Place], object]


def version(package: str) -> Change:
    """Another version of a package is installed."""

    def change(place: Place) -> None:
        found = versions.metadata.version

        def other(name: str) -> str:
            return "0.0.1" if name == package else found(name)

        place.patch.setattr(versions.metadata, "version", other)

    return change


def edit(name: str) -> Change:
    return lambda place: place.write(name, "an edit")


def retime(name: str) -> Change:
    """The same number of bytes, written later."""
    return lambda place: place.write(name, place.text(name))


def resize(name: str) -> Change:
    """Another number of bytes under the same time, as a copy that keeps times has it."""

    def change(place: Place) -> None:
        path = place.folder / name
        before = path.stat().st_mtime_ns
        path.write_text("of another length")
        os.utime(path, ns=(before, before))

    return change


def patched(where: Any, name: str, value: Any) -> Change:
    return lambda place: place.patch.setattr(where, name, value)


def invariant(place: Place) -> None:
    as_it_was = load
    place.patch.setitem(globals(), "load", lambda path: with_invariant(as_it_was(path), True))


def modelled(place: Place) -> None:
    as_it_was = load
    place.patch.setitem(globals(), "load", lambda path: with_device(as_it_was(path), "sm_90"))


def moved(place: Place) -> None:
    """The same contract, in a folder of its own."""
    (place.folder / "deep").mkdir()
    (place.folder / "c.json").rename(place.folder / "deep/c.json")


def spelt(place: Place) -> None:
    """The tokenizer makes other ids of the texts."""
    place.patch.setattr("kvparity.plan.texts._bytes", lambda text: (1, *text.encode()))


CHANGES: dict[str, tuple[str, Change, str]] = {
    "schema": ("decoder", patched(identity, "SCHEMA_VERSION", 77), "schema"),
    "contract": (
        "decoder", lambda place: place.write("c.json", place.text("c.json") + " "), "contract",
    ),
    "path": ("decoder", moved, "path"),
    "device": ("decoder", patched(environment, "cpu_model", lambda: "another"), "device"),
    "triton mode": ("decoder", patched(runtime, "mode", lambda: "compiled"), "triton_mode"),
    "tiles": (
        "decoder",
        patched(force, "words", lambda tiles: "prefill_block_m=16"),
        "tiles",
    ),
    "invariant": ("model", invariant, "invariant, tiles"),
    "numerics device": ("decoder", modelled, "numerics_device"),
    "texts": ("decoder", spelt, "texts"),
    "kvparity": ("decoder", patched(kvparity, "__version__", "0.0.1"), "versions"),
    "torch": ("decoder", version("torch"), "versions"),
    "triton": ("decoder", version("triton"), "versions"),
    "numpy": ("decoder", version("numpy"), "versions"),
    "transformers": ("decoder", version("transformers"), "versions"),
    "flashinfer": ("decoder", version("flashinfer-python"), "versions"),
    "prefill's file": ("files", edit("mine.py"), "subject_files"),
    "decode's file": ("files", edit("other.py"), "subject_files"),
    "a file that is gone": (
        "files", lambda place: (place.folder / "other.py").unlink(), "subject_files",
    ),
    "a module beside": ("beside", edit("package/deep.py"), "subject_files"),
    "a package beside": ("beside", edit("package/__init__.py"), "subject_files"),
    "an installed module": ("installed", edit("site/elsewhere/deep.py"), "subject_files"),
    "an installed package": ("installed", edit("site/elsewhere/__init__.py"), "subject_files"),
    "settings": ("model", edit("model/config.json"), "subject_files"),
    "weights": ("model", edit("model/weights-2.safetensors"), "subject_files"),
    "the first weights": ("model", edit("model/weights-1.safetensors"), "subject_files"),
    "weights of a decoder": ("weights", edit("model/weights-2.safetensors"), "subject_files"),
    "a tokenizer": ("model", edit("model/spiece.model"), "subject_files"),
    "merges": ("model", edit("model/merges.txt"), "subject_files"),
    "a template": ("model", edit("model/chat_template.jinja"), "subject_files"),
    "weights of another time": ("model", retime("model/weights-2.safetensors"), "subject_files"),
    "weights of another size": ("model", resize("model/weights-2.safetensors"), "subject_files"),
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr("kvparity.run.verify.settle", lambda: None)  # nothing is computed
    return Place(tmp_path, monkeypatch)


class Stopped(BaseException):
    """All that a run looks at before it computes is as it should be."""


def stop(*_: Any) -> None:
    raise Stopped


def begin(place: Place, subject: str) -> Path:
    """The head of a run that was stopped before it computed anything."""
    texts = [] if subject != "decoder" else TEXTS
    whole = toy.document(checks=[BITS], subject=SUBJECTS[subject], controls=["stale-slot"])
    whole["workloads"] += texts
    if subject in ("files", "beside", "installed"):
        whole["numerics"] = {"execution": "float32"}
    place.write("c.json", json.dumps(whole))
    start(place, resume=False)
    return place.folder / "run/identity.json"


def start(place: Place, *, resume: bool) -> None:
    """Begin a run, or take it up again: as far as its first sign of life."""
    (contract,) = place.folder.rglob("c.json")
    with pytest.raises(Stopped):
        verify(
            load(contract), device="cpu", folder=place.folder / "run", jobs=1, resume=resume,
            command="", progress=stop,
        ).document()  # fmt: skip


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_run_is_resumed_where_nothing_changed(subject: str, place: Place) -> None:
    begin(place, subject)
    start(place, resume=True)


@pytest.mark.parametrize("name", CHANGES)
def test_a_run_is_not_resumed_where_one_thing_changed(name: str, place: Place) -> None:
    subject, change, key = CHANGES[name]
    begin(place, subject)
    change(place)
    words = r"of schema 2, .*of schema 77" if key == "schema" else rf"resumed: {key} changed since"
    with pytest.raises(RunFolderError, match=words):
        start(place, resume=True)


KEYS = (
    "schema_version",
    "contract",
    "path",
    "versions",
    "device",
    "triton_mode",
    "subject_files",
    "invariant",
    "numerics_device",
    "tiles",
    "texts",
)


@pytest.mark.parametrize("key", KEYS)
def test_what_the_run_did_not_write_has_changed(key: str, place: Place) -> None:
    head = begin(place, "decoder")
    whole = json.loads(head.read_text())
    assert {*whole} - {"command"} == {*KEYS}
    del whole[key]
    head.write_text(json.dumps(whole))
    other = {"schema_version": "of schema 1", "path": "no mapping with 'path'"}
    with pytest.raises(RunFolderError, match=other.get(key, f"resumed: {key} changed since")):
        start(place, resume=True)


OWN: dict[str, set[str]] = {
    "decoder": set(),
    "files": {"mine.py", "other.py"},
    "beside": {"__init__.py", "deep.py"},
    "installed": set(),
    "weights": set(),
}


@pytest.mark.parametrize("subject", OWN)
def test_a_contracts_own_sources_are_known_wherever_it_lies(subject: str, place: Place) -> None:
    """The store tells runs of other sources apart by them; of installed ones, releases do."""
    head = begin(place, subject)
    loaded = load(place.folder / "c.json")
    found = identity.sources_of_run(loaded, head.parent)
    assert found == dict.fromkeys(OWN[subject], hashlib.sha256(b"{}").hexdigest())
    alike = {f"/{side}/mine.py": side * 64 for side in "ab"}
    assert set(identity.own_sources(loaded, alike)) == {"a/mine.py", "b/mine.py"}


def test_every_key_has_a_row() -> None:
    named = {key for _, _, keys in CHANGES.values() for key in keys.split(", ")}
    assert named == {*KEYS} - {"schema_version"} | {"schema"}
