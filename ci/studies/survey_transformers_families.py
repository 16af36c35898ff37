"""What does `kvparity verify` say of a tiny model of each type of transformers?

    python ci/studies/survey_transformers_families.py
        write docs/results/transformers-families.json and the table in transformers-families.md
    python ci/studies/survey_transformers_families.py mixtral
        print one type, write nothing

Tiny random models (``TYPES`` in ``tests/harness/transformers_families.py``) by the command line, as
a user would: decode, chunks, ``generate()`` and left padding against one forward pass, bit for bit;
each of them against float64; planted defects. In float32 with eager attention, and in bfloat16 with
transformers' default attention. A verdict is `holds`, `differs` or `void`; where a model cannot be
verified, a sentence says why. An internal error fails this script.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TypedDict

from study import ROOT, put, write

sys.path[:0] = [str(ROOT / name) for name in ("harness", "kernels", "contracts", "tests/harness")]

import torch  # noqa: E402 - the path comes first
import transformers  # noqa: E402
from transformers_families import NO_SDPA, TYPES  # noqa: E402

from kvparity.core.exit_codes import ExitCode  # noqa: E402

OUT = ROOT / "docs" / "results" / "transformers-families.json"
COLUMNS = (("eager", "float32", 1e-3), ("sdpa", "bfloat16", 3e-1))
PATHS = ["generate", "decode", "chunked(7)", "padded-left"]
BITS, NEAR = "agrees with one forward pass", "close to float64"
WORKLOAD = {"name": "prompts", "prompt_tokens": [3, 20, 33], "generate": 6, "pad": ["left"]}
VERDICTS = (ExitCode.HOLDS, ExitCode.DIFFERS, ExitCode.VOID)


class TypeRow(TypedDict, total=False):
    """What is said of a type: a verdict with its details, or only words."""

    type: str
    attention: str
    execution: str
    exit_code: int
    words: str
    verdict: str
    bits: str
    max_abs_dlogp: float
    accuracy: str
    accuracy_max_abs_dlogp: float
    controls: str


class CaseDistance(TypedDict):
    """Of a case of the report."""

    max_abs_dlogp: float | None


class CheckReport(TypedDict):
    """Of a check of the report."""

    verdict: str
    reason: str
    cases: list[CaseDistance]


def contract(family: str, attention: str, execution: str, limit: float) -> dict[str, object]:
    """What is verified of a type."""
    return {
        "version": 1,
        "name": "survey",
        "subject": {"kind": "transformers", "attention": attention, "config": TYPES[family]},
        "numerics": {"execution": execution},
        "workloads": [WORKLOAD],
        "checks": [
            {"name": BITS, "relation": "invariance", "paths": PATHS},
            {
                "name": NEAR,
                "relation": "accuracy",
                "limits": {"max_abs_dlogp": limit},
                "paths": ["prefill", *PATHS],
            },
        ],
        "controls": "all",
    }


def verify(family: str, attention: str, execution: str, limit: float) -> TypeRow:
    """One row: the verdict of `kvparity verify`, by check, or the sentence in its place."""
    about: TypeRow = {"type": family, "attention": attention, "execution": execution}
    paths = [str(ROOT / name) for name in ("harness", "kernels", "contracts")]
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "survey.yaml"
        file.write_text(json.dumps(contract(family, attention, execution, limit)))
        command = [sys.executable, "-m", "kvparity", "verify", str(file)]
        ended = subprocess.run(
            [*command, "--json", "--no-locate", "--jobs", "1", "--run-dir", f"{folder}/run"],
            capture_output=True, text=True, env=surroundings, cwd=folder, check=False,
        )  # fmt: skip
    document = json.loads(ended.stdout)
    if "checks" not in document:
        return {**about, "exit_code": ended.returncode, "words": document["error"]}
    checks: dict[str, CheckReport] = {each["name"]: each for each in document["checks"]}
    bits, near = checks[BITS], checks[NEAR]
    return {
        **about,
        "exit_code": ended.returncode,
        "verdict": document["verdict"],
        "bits": bits["verdict"],
        "max_abs_dlogp": largest(bits),
        "accuracy": near["verdict"],
        "accuracy_max_abs_dlogp": largest(near),
        "controls": f"{sum(c['caught'] for c in document['controls'])} of "
        f"{len(document['controls'])}",
        "words": near["reason"] if near["verdict"] in ("error", "void") else "",
    }


def largest(check: CheckReport) -> float:
    """The largest distance of any of a check's cases."""
    return max((case["max_abs_dlogp"] or 0.0 for case in check["cases"]), default=0.0)


def internal(row: TypeRow) -> bool:
    """Whether a row is a fault of kvparity's own."""
    return row["exit_code"] not in (*VERDICTS, ExitCode.USAGE) and "verdict" not in row


def table(rows: list[TypeRow]) -> str:
    """A line for each type: what both columns say."""
    names = ["type"]
    for attention, execution, limit in COLUMNS:
        names += [f"{attention}, {execution}: bits", f"within {limit:g} of float64"]
    lines = ["| " + " | ".join([*names, "controls", ""]) + " |", "|" + " --- |" * (len(names) + 2)]
    for family in dict.fromkeys(row["type"] for row in rows):
        cells, controls, words = [f"`{family}`"], [], []
        for attention, execution, _ in COLUMNS:
            row = next(
                (r for r in rows if (r["type"], r["attention"]) == (family, attention)
                 and r["execution"] == execution), None,
            )  # fmt: skip
            if row is None:
                cells += ["–", "–"]
                continue
            if "verdict" not in row:
                cells += ["refused", "refused"]
            else:
                error = row["accuracy"] == "error"
                cells.append(f"{row['bits']}, {row['max_abs_dlogp']:.0e}")
                near = "" if error else f", {row['accuracy_max_abs_dlogp']:.0e}"
                cells.append(f"{row['accuracy']}{near}")
                controls.append(row["controls"])
            words.append(row["words"].split(". ")[0].replace("|", "\\|"))
        cells += [" / ".join(controls), "; ".join(dict.fromkeys(filter(None, words)))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Ask all types, or those that are named; 1 if one ended in an error of kvparity's own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("types", nargs="*", metavar="TYPE", help=", ".join(TYPES))
    given = parser.parse_args()
    rows = []
    begin = time.perf_counter()
    for family in given.types or TYPES:
        for attention, execution, limit in COLUMNS:
            if attention == "sdpa" and family in NO_SDPA:
                continue
            rows.append(verify(family, attention, execution, limit))
            said = rows[-1].get("verdict", rows[-1]["words"])
            print(f"{time.perf_counter() - begin:5.0f} s {family}, {attention}: {said}",
                  file=sys.stderr)  # fmt: skip
    if given.types:
        print(json.dumps(rows, indent=1))
    else:
        document = {
            "command": "python ci/studies/survey_transformers_families.py",
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            "prompts": WORKLOAD,
            "rows": rows,
        }
        write(OUT, document)
        put(OUT.with_suffix(".md"), table(rows))
    return int(any(map(internal, rows)))


if __name__ == "__main__":
    sys.exit(main())
