"""The project's own contracts, by the command and as tests of pytest: is every verdict the same?

    python ci/studies/plugin_library.py
        all contracts of the library; writes docs/results/plugin-library.json after each, and at
        the end the table in docs/results/walks.md
    python ci/studies/plugin_library.py smoke tp-invariance
        these anew; the others stay as they were measured, on the same machine

`kvparity verify` and `pytest` run each contract in processes of their own. Compared are the verdict
of each case and control, the whole verdict, and where nothing could be run the words. A contract
that needs what this machine lacks ends with the same error in both. A case that fails is then
dropped from the tests, and another time made to pass: both must be reported.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from study import RESULTS, ROOT, put

HELPERS = ROOT / "tests/harness"
sys.path.append(str(HELPERS))

from plugin_ends import Ends, of_command, of_tests, unlike  # noqa: E402
from plugin_flaws import FLAWS  # noqa: E402

from kvparity_contracts.library import FOLDER  # noqa: E402

OUT = RESULTS / "plugin-library.json"
LARGE = ("decode-prefill",)
"""Takes hours on a CPU: asked for on CUDA, which this machine may lack."""
PACKAGES = ("torch", "triton", "transformers", "pytest", "flashinfer-python")


@dataclass(frozen=True)
class LibraryRow:
    """A contract by the command and by pytest: exit codes, tests by outcome, seconds, what is
    unlike, and what the command says where there is no run."""

    contract: str
    device: str
    flaw: str
    command: int
    pytest: int
    tests: dict[str, int]
    command_s: int
    pytest_s: int
    unlike: list[str]
    words: str


@dataclass(frozen=True)
class Both:
    """What the command said of a contract, in which time."""

    ends: Ends
    seconds: float


def command(name: str, folder: Path) -> Both:
    """``kvparity verify``."""
    run = folder / "run"
    own = [str(FOLDER / f"{name}.yaml"), "--device", _device(name), "--run-dir", str(run)]
    begin = time.monotonic()
    ended = _python(folder, "-m", "kvparity", "verify", *own)
    return Both(of_command(ended.returncode, run, ended.stderr), time.monotonic() - begin)


def row(name: str, found: Both, folder: Path, flaw: str = "") -> LibraryRow:
    """The same by pytest, with a flaw planted in its plugin or without."""
    runs, junit = folder / f"plugin{flaw}", folder / f"junit{flaw}.xml"
    own = ["--kvparity-device", _device(name), "--kvparity-run-dir", str(runs)]
    planted = (
        ["-p", "plugin_flaws", "--flaw", flaw, "--flaw-of", failing(found.ends)] if flaw else []
    )
    begin = time.monotonic()
    ended = _python(folder, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(FOLDER),
                    "-p", "kvparity.pytest_plugin", "-p", "no:cacheprovider", "-p", "no:xdist",
                    *planted, *own, f"--junitxml={junit}",
                    str(FOLDER / f"{name}.yaml"))  # fmt: skip
    took = time.monotonic() - begin
    tests = of_tests(ended.returncode, junit, runs)
    counts = dict(sorted(Counter(tests.by.values()).items()))
    return LibraryRow(
        name, _device(name), flaw, found.ends.code, tests.code, counts,
        round(found.seconds), round(took), unlike(found.ends, tests), found.ends.words,
    )  # fmt: skip


def failing(ends: Ends) -> str:
    """The first case that does not hold."""
    return next(what[0] for what, end in ends.by.items() if len(what) == 1 and end == "failed")


def table(rows: list[LibraryRow]) -> str:
    """A line for each."""
    lines = ["| contract | command | tests | alike |", "| --- | --- | --- | --- |"]
    for each in rows:
        tests = ", ".join(f"{number} {end}" for end, number in each.tests.items())
        name = f"`{each.contract}`" + ", `--device cuda`" * (each.device == "cuda")
        name += f", a failing test {each.flaw}" * bool(each.flaw)
        alike = "; ".join(each.unlike[:2]) + "; …" * (len(each.unlike) > 2) or "yes"
        lines.append(f"| {name} | {each.command} | {each.pytest}: {tests} | {alike} |")
    return "\n".join(lines)


def main() -> int:
    """Ask all; 1 if one was unlike, or a flaw of the plugin was not seen."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="contracts of the library")
    given = parser.parse_args().names
    rows = _others(given) if given else []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        for name in given or sorted(each.stem for each in FOLDER.glob("*.yaml")):
            folder = Path(scratch) / name
            folder.mkdir()
            found = command(name, folder)
            flaws = FLAWS if "failed" in found.ends.by.values() and not _planted(rows) else ()
            for flaw in ("", *flaws):
                rows.append(row(name, found, folder, flaw))
                print(json.dumps(asdict(rows[-1])), file=sys.stderr, flush=True)
                rows.sort(key=lambda each: (each.contract, each.flaw))
                _write(rows)
    put(RESULTS / "walks.md", table(rows))
    return int(any(bool(each.unlike) is not bool(each.flaw) for each in rows) or not _planted(rows))


def _planted(rows: list[LibraryRow]) -> bool:
    return any(each.flaw for each in rows)


def _others(names: list[str]) -> list[LibraryRow]:
    """What was measured of the others, with these versions."""
    was = json.loads(OUT.read_text(encoding="utf-8"))
    if was["about"] != _about():
        sys.exit(f"{OUT} was measured elsewhere: {was['about']}; run all")
    return [LibraryRow(**each) for each in was["rows"] if each["contract"] not in names]


def _about() -> dict[str, object]:
    return {"command": "python ci/studies/plugin_library.py", "date": time.strftime("%Y-%m-%d"),
             "python": platform.python_version(), "machine": platform.machine(),
             "cores": os.cpu_count(), **{each: _version(each) for each in PACKAGES}}  # fmt: skip


def _write(rows: list[LibraryRow]) -> None:
    text = json.dumps({"about": _about(), "rows": [asdict(each) for each in rows]}, indent=1)
    OUT.write_text(text + "\n", encoding="utf-8")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device(name: str) -> str:
    return "cuda" if name in LARGE else "cpu"


def _python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    rooms = [str(ROOT / each) for each in ("harness", "kernels", "contracts")]
    more = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = os.pathsep.join([*rooms, str(HELPERS), *filter(None, more)])
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env={**os.environ, "PYTHONPATH": paths},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
