"""Triton kernels of other projects under contracts, in Triton's interpreter: what each verdict is.

    pip install conch-triton-kernels==1.3 fla-core==0.6.0
    python ci/studies/third_party_kernels.py --only conch-unified conch-paged fla

Each contract of docs/results/third-party is verified by the packages that it names, and its row put
into docs/results/third-party-kernels.json; then the table of docs/third-party-kernels.md is written
anew. SGLang's are run by the Python that ``ci/engines setup`` installs it into.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from study import ROOT, put, write

sys.path[:0] = [str(ROOT / name) for name in ("harness", "kernels", "contracts", "ci/docs")]

from commands import table  # noqa: E402 - the path comes first

from kvparity import Report, verify  # noqa: E402
from kvparity.plan.results import CaseLine  # noqa: E402
from kvparity_contracts.json_types import JsonObject  # noqa: E402

CONTRACTS = ROOT / "docs" / "results" / "third-party"
OUT = ROOT / "docs" / "results" / "third-party-kernels.json"
PAGE = ROOT / "docs" / "third-party-kernels.md"
PACKAGES = {"conch": "conch-triton-kernels", "fla": "fla-core", "sglang": "sglang"}
"""Which package a contract is about, by the first part of its name."""
Rows = dict[str, dict[str, str]]


def row(report: Report, package: str) -> dict[str, str]:
    """What a verification found, by path: tokens that differ, of all in both formats."""
    found = {
        "package": f"{package} {version(package)}",
        "torch and triton": f"{version('torch')}, {version('triton')}",
        "verdict": report.verdict,
        "controls": f"{sum(c.caught for c in report.controls)} of {len(report.controls)}",
    }
    for check in report.checks:
        paths: dict[str, list[CaseLine]] = {}
        for case in check.cases:
            paths.setdefault(case.path, []).append(case)
        for path, cases in paths.items():
            name = path if check.relation == "invariance" else "float64"
            found[name] = cell(cases)
    return found


def cell(cases: Sequence[CaseLine]) -> str:
    """One path in all formats: that it holds, how many rows do not, or how far they are off."""
    if all(each.verdict == "holds" for each in cases):
        return "holds"
    off = sum(each.differing_rows for each in cases)
    count = f"{off} of {sum(each.tokens for each in cases)} rows differ"
    if any("NaN" in each.reason for each in cases):
        return "NaN"
    if off and cases[0].relation == "invariance":
        return count
    return "; ".join(f"{each.dtype}: {each.reason}" for each in cases if each.verdict != "holds")


def rows_of(rows: Rows) -> str:
    """The table of the page."""
    heads = ("decode", "batched", "chunked(20)", "float64")
    body = [
        [f"[{name}](results/third-party/{name}.yaml)", each["package"]]
        + [each.get(head, "no such path") for head in heads]
        for name, each in sorted(rows.items())
    ]
    return table(["contract", "package", *heads], body)


def main() -> None:
    """Verify, write, and put the table into the page."""
    names = sorted(file.stem for file in CONTRACTS.glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    rows: Rows = json.loads(OUT.read_text()) if OUT.exists() else {}
    for name in parser.parse_args().only:
        with tempfile.TemporaryDirectory() as folder:
            report = verify(CONTRACTS / f"{name}.yaml", device="cpu", run_dir=Path(folder) / "run")
        print(report)
        rows[name] = row(report, PACKAGES[name.partition("-")[0]])
    document: JsonObject = {name: dict(each) for name, each in sorted(rows.items())}
    write(OUT, document)
    put(PAGE, rows_of(rows))


if __name__ == "__main__":
    main()
