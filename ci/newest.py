"""What the newest releases of other libraries changed; see ci/newest, which makes the environment.

Runs the tests that touch other libraries and ``kvparity doctor`` once, and prints every version
that is not the pinned one, then every check that broke under the library that it stands for. Exit
code 1 if a check broke.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pins
from packaging.markers import default_environment
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
BESIDE = ("flashinfer-python", "apache-tvm-ffi")
"""Not pinned: installed to be looked at."""

CHECKS: Mapping[str, tuple[str, ...]] = {
    "transformers": (
        "tests/harness/subjects/hf/test_*.py",
        "tests/harness/subjects/export/test_transformers_programs.py",
        "tests/kernels/test_invariant_model.py",
    ),
    "torch": (
        "tests/kernels/test_invariant.py",
        "tests/kernels/test_invariant_operations.py",
        "tests/kernels/test_invariant_refusals.py",
        "tests/harness/subjects/export/test_decoder_programs.py",
        "tests/harness/subjects/export/test_inspection.py",
        "tests/harness/subjects/decoder/test_backend_sdpa.py",
        "tests/harness/core/test_torch_flags.py",
    ),
    "triton": (
        "tests/kernels/test_interpreter*.py",
        "tests/kernels/test_launch.py",
        "tests/kernels/test_operations_compile.py",
        "tests/kernels/test_rope.py",
        "tests/harness/relations/audit/test_*.py",
    ),
    "flashinfer": (
        "tests/harness/pairs/test_flashinfer*.py",
        "tests/harness/subjects/decoder/test_backend_flashinfer.py",
    ),
    "what is relied on": (
        "tests/harness/core/relied/test_*.py",
        "tests/harness/core/test_versions.py",
    ),
    "pydantic and ruamel.yaml": ("tests/contracts/test_*.py",),
}
"""Tests by the library whose release would break them. Every pattern names a file."""


@dataclass(frozen=True)
class Broke:
    """A check that did not pass: of which library, which one, and its first words."""

    library: str
    check: str
    words: str

    def __str__(self) -> str:
        return f"{self.library}: {self.check}: {self.words}"


def files(patterns: Iterable[str], root: Path = ROOT) -> list[str]:
    """Paths from the root, sorted. Raises ``ValueError`` for a pattern that names no file."""
    found = []
    for pattern in patterns:
        matches = sorted(str(path.relative_to(root)) for path in root.glob(pattern))
        if not matches:
            raise ValueError(f"no file is called {pattern}: mend CHECKS")
        found += matches
    return found


def changed(pinned: Mapping[str, str], found: Iterable[tuple[str, str | None]]) -> Iterator[str]:
    """``name PINNED -> INSTALLED`` for all that is not as pinned."""
    for name, version in sorted(found):
        if name not in pinned:
            yield f"{name} {version or 'is not installed'} (not pinned)"
        elif version is None:
            yield f"{name} {pinned[name]} -> not installed"
        elif Version(version).public != Version(pinned[name]).public:
            yield f"{name} {pinned[name]} -> {version}"


def of_tests(report: str) -> tuple[int, list[Broke]]:
    """(tests that were run, those that broke) of a JUnit report of pytest."""
    library = {path: name for name, patterns in CHECKS.items() for path in files(patterns)}
    ran, broke = 0, []
    for case in ElementTree.fromstring(report).iter("testcase"):
        ran += case.find("skipped") is None
        wrong = next((e for kind in ("failure", "error") for e in case.iter(kind)), None)
        if wrong is None:
            continue
        path = str(case.get("file") or case.get("classname", "").replace(".", "/") + ".py")
        words = (wrong.get("message") or wrong.text or "no word").strip().splitlines()[0]
        name = library.get(path, "another")
        broke.append(Broke(name, f"{path}::{case.get('name')}", words[:200]))
    return ran, broke


def of_doctor(document: str) -> list[Broke]:
    """What ``kvparity doctor --json`` says does not work. FlashInfer has to be there."""
    try:
        found = json.loads(document)
        trials = found["trials"]
    except (ValueError, KeyError):
        return [Broke("kvparity", "doctor", f"no trials in {document.strip()[:200]!r}")]
    return [
        Broke(name, "doctor", trial["problem"] or f"not installed: {trial['missing']}")
        for name, trial in trials.items()
        if trial["problem"] or trial["missing"]
    ]


def _tests(more: Sequence[str]) -> tuple[int, list[Broke]]:
    paths = files(pattern for patterns in CHECKS.values() for pattern in patterns)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "--numprocesses", "auto"]
        command += ["--dist", "worksteal", "-o", "junit_family=xunit1", f"--junitxml={report}"]
        code = subprocess.run([*command, *paths, *more], cwd=ROOT, check=False).returncode
        if not report.is_file():
            return 0, [Broke("pytest", "the run", f"exit code {code} and no report")]
        ran, broke = of_tests(report.read_text(encoding="utf-8"))
    if code and not broke:
        broke = [Broke("pytest", "the run", f"exit code {code}, and no test failed")]
    return ran, broke


def _doctor() -> list[Broke]:
    command = [sys.executable, "-m", "kvparity", "doctor", "--device", "cpu", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return of_doctor(done.stdout or done.stderr)


def summary(versions: Sequence[str], ran: int, broke: Sequence[Broke]) -> str:
    """What is printed last."""
    lines = ["newest: other versions than ci/constraints.txt:" if versions else ""]
    lines += [f"  {line}" for line in versions] or ["newest: every version is the pinned one"]
    lines += [f"newest: {len(broke)} checks broke:" if broke else f"newest: {ran} checks passed"]
    lines += [f"  {each}" for each in broke]
    return "\n".join(filter(None, lines))


def main(argv: Sequence[str]) -> int:
    """Exit code 1 if a check broke."""
    here = {**default_environment()}
    pinned = pins.read((ROOT / "ci/constraints.txt").read_text(encoding="utf-8"), here)
    needed = dict(pins.reached([f"{pins.PROJECT}[dev,report]", *BESIDE[1:]], here))
    needed |= {name: found[0] for name in BESIDE if (found := pins.installed(name))}
    del needed[pins.PROJECT]
    broke = _doctor()
    ran, more = _tests(argv)
    broke += more
    print(summary([*changed(pinned, needed.items())], ran, broke))
    return 1 if broke else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
