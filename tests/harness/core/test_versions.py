"""The tested range of versions, and that reports say what is outside of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kvparity.cli.main import main
from kvparity.core import versions
from kvparity.core.exit_codes import ExitCode
from kvparity.core.versions import TESTED, VersionRange, outside
from kvparity.labs.codec import text as codec
from kvparity.labs.defect_matrix import text as defect_matrix
from kvparity.relations.audit.compare import KernelComparison
from kvparity.relations.audit.contract import Result
from kvparity.relations.audit.report import AuditReport
from kvparity.relations.audit.request import Shape
from kvparity.relations.order import text as order
from kvparity.run.trace_command import Traced
from kvparity.tiles import text as tiles
from kvparity.tiles.document import Measurement
from kvparity_kernels.order import ReductionOrder

AUDITED = Result(
    "sm_90", Shape(1, 1, 16), ReductionOrder(), ReductionOrder(),
    KernelComparison("decode", "prefill", "sm_90", ()), "sm_90",
)  # fmt: skip


@pytest.mark.parametrize(
    ("version", "inside"),
    [
        ("4.57.6", True),
        ("5.24.0", True),
        ("5.24.9+local", True),
        ("5.24.0.dev0", True),
        ("4.56.2", False),
        ("5.25.0.dev0", False),
        ("5.100.0", False),  # compared as numbers, not as text
        ("10.0", False),
        ("nightly", False),
    ],
)
def test_a_version_is_compared_as_far_as_the_bound_goes(
    monkeypatch: pytest.MonkeyPatch, version: str, inside: bool
) -> None:
    monkeypatch.setattr(versions, "TESTED", {"transformers": VersionRange("4.57", "5.24")})
    found = outside({"transformers": version})
    assert [str(x) for x in found] == (
        [] if inside else [f"transformers {version} (tested: 4.57 to 5.24)"]
    )


def test_what_is_missing_or_not_in_the_table_is_not_outside() -> None:
    assert outside({"transformers": None, "flashinfer-python": "99"}) == ()
    (found,) = outside({"torch": "99.0.0+cu999"})
    assert found.library == "torch"
    assert found.tested == TESTED["torch"]


def test_the_table_is_of_what_is_installed_here() -> None:
    found = versions.installed()
    assert found.keys() == TESTED.keys()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    for library in ("torch", "numpy", "pydantic"):
        # The metadata of some builds leaves out the local part, such as +cu130.
        version = __import__(library).__version__
        assert found[library] in (version, version.partition("+")[0])


CONTRACT = f"""\
version: 1
name: elsewhere
subject:
  kind: attention
  prefill: {Path(__file__).parents[1] / "hostile_pair.py"}:prefill
  decode: {Path(__file__).parents[1] / "hostile_pair.py"}:decode
  heads: {{query: 2, kv: 1, dim: 4}}
numerics: {{execution: float32}}
workloads:
  - {{name: short, prompt_tokens: [2], generate: 3}}
checks:
  - {{name: bits, relation: invariance, paths: [decode]}}
controls: [stale-slot]
"""


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_run_says_what_is_outside_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    elsewhere: bool,
) -> None:
    torch = "99.1.0" if elsewhere else TESTED["torch"].highest
    monkeypatch.setattr(versions, "installed", lambda: {"torch": torch})
    contract, folder = tmp_path / "contract.yaml", tmp_path / "run"
    contract.write_text(CONTRACT)
    assert main(["verify", str(contract), "--run-dir", str(folder), "--jobs", "1"]) == 0
    line = f"  outside of the tested versions: torch 99.1.0 (tested: {TESTED['torch']})"
    printed = [capsys.readouterr().out.splitlines()]
    found = json.loads((folder / "run.json").read_text())
    assert found["environment"]["outside_tested"] == (line.split(": ", 1)[1] if elsewhere else None)
    assert main(["replay", str(folder), "c000"]) == ExitCode.HOLDS
    printed.append(capsys.readouterr().out.splitlines())
    assert [lines.count(line) for lines in printed] == [elsewhere, elsewhere]


SAID = "triton 9.9 (tested: 3.6 to 3.9)"
OLDER = "older"
PLACE: dict[str, Any] = {
    "device": "cpu",
    "device_name": "Some CPU",
    "triton_mode": "compiled",
    "versions": {},
}


def texts(said: str | None) -> dict[str, str]:
    """The other reports, of documents that say so, or of an older version's."""
    more = {} if said == OLDER else {"outside_tested": said}
    place = PLACE | more
    run = {"workload": "w", "tokens": 1, "temperature": 1, "execution": "float32"}
    judged = SimpleNamespace(outcome="holds", reason="", broken=(), said={})
    return {
        "order": order.render([], place),
        "tiles": tiles.measured(Measurement("measured", place, (), (), ())),
        "audit": AuditReport({"name": "x"}, (AUDITED,), 0.0, more.get("outside_tested")).text(),
        "codec": "\n".join(
            codec._head(
                SimpleNamespace(  # type: ignore[arg-type] # what the head reads
                    environment=place,
                    contract={"name": "x"},
                    layer_plan=(),
                    run=SimpleNamespace(**run, dequantised_to="float32"),
                )
            )
        ),
        "trace": Traced(
            trace=SimpleNamespace(judgement=judged, path="decode"),  # type: ignore[arg-type] # what the head reads
            contract={"name": "x"},
            workload="w",
            numerics="float32",  # type: ignore[arg-type] # as above
            environment=place,
            lines=(),
        ).text(),
        "matrix": defect_matrix.terminal(
            {
                "controls": [],
                "located": {"cause": 0, "of": 0, "first": 0, "of_first": 0},
                "environment": place,
            }
        ),
    }


@pytest.mark.parametrize("report", sorted(texts(None)))
def test_every_other_report_says_it_too(report: str) -> None:
    line = f"  outside of the tested versions: {SAID}"
    assert texts(SAID)[report].splitlines().count(line) == 1
    for nothing in (None, OLDER):
        assert "tested versions" not in texts(nothing)[report]


def test_the_module_imports_nothing_heavy() -> None:
    code = (
        "import sys; import kvparity.core.versions; "
        "print(sorted({m.partition('.')[0] for m in sys.modules} & "
        "{'torch', 'numpy', 'triton', 'transformers', 'pydantic'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
