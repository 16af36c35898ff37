"""Faults that people thought of, written down in ``ci/faults``: each must turn its tests red."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mutation.scope import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = ROOT / "ci/faults"


@dataclass(frozen=True)
class ListedFault:
    """``find`` stands once in ``file``; with ``replace`` in its place, ``tests`` fail.

    ``green``: what would be called right though it is wrong.
    """

    name: str
    file: str
    find: str
    replace: str
    green: str
    tests: tuple[str, ...]

    def text(self, source: str) -> str:
        """The file with the fault; ValueError where its text does not stand there once."""
        if source.count(self.find) != 1:
            raise ValueError(
                f"fault {self.name}: its text stands {source.count(self.find)} times in {self.file}"
            )
        return source.replace(self.find, self.replace)

    def line(self, source: str) -> int:
        """The first line that differs."""
        pairs = zip(source.splitlines(), self.text(source).splitlines(), strict=False)
        return next(n for n, (before, after) in enumerate(pairs, 1) if before != after)

    def plant(self, root: Path) -> None:
        """Write the fault into the tree ``root``."""
        path = root / self.file
        path.write_text(self.text(path.read_text()))


def faults() -> list[ListedFault]:
    """All of them, by file and then as they are written."""
    return [
        ListedFault(**{**entry, "tests": tuple(entry["tests"])})
        for entry in entries(FOLDER, "fault")
    ]


def entries(folder: Path, kind: str) -> list[dict[str, str]]:
    """The tables of a kind in the TOML files of a folder, by file and then as they are written."""
    files = sorted(folder.glob("*.toml"))
    return [entry for path in files for entry in tomllib.loads(path.read_text())[kind]]


def planted(name: str) -> str:
    """The file of a fault with the fault."""
    (fault,) = (each for each in faults() if each.name == name)
    return fault.text((ROOT / fault.file).read_text())


def failing(root: Path, *more: str) -> list[str]:
    """The node ids of the tests that fail or cannot be run in a tree, by the README's command."""
    paths = os.pathsep.join(str(root / room) for room in ("harness", "kernels", "contracts"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *more],
        cwd=root, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip
    words = ("FAILED ", "ERROR ")
    lines = [line for line in done.stdout.splitlines() if line.startswith(words)]
    if done.returncode not in (0, 1) or (done.returncode == 1) != bool(lines):
        raise RuntimeError(done.stdout[-3000:] + done.stderr[-3000:])
    return [line.split(" ", 1)[1].split(" - ")[0] for line in lines]
