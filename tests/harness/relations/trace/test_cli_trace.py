"""``kvparity trace``: its table, its files, its exit codes, and what it says first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import toy
from emitting import Emitting
from ruamel.yaml import YAML

from kvparity.cli.main import main
from kvparity.run import trace_command


@pytest.fixture
def contract(tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    workloads = [
        {"name": "one", "prompt_tokens": [3, 9], "generate": 4, "pad": ["left"]},
        {"name": "long", "prompt_tokens": [2], "generate": 40},
    ]
    with path.open("w") as file:
        YAML().dump(toy.document(workloads=workloads), file)
    return path


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Defects of the subject that the command will load; empty: none."""
    defects: set[str] = set()
    monkeypatch.setattr(trace_command, "subject_of", lambda *_: Emitting(*defects))
    return defects


def call(*words: object) -> int:
    return main(["trace", *map(str, words), "--device", "cpu"])


def test_an_honest_trace(
    contract: Path, planted: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(contract, "--out", tmp_path / "out", "--sequence", 1) == 0
    text = capsys.readouterr().out
    assert text.startswith("toy: HOLDS, path decode over one, float32, on cpu\n")
    assert "all invariants hold in 8 rows of 3 layers" in text
    assert "sequence one/1, 4 rows" in text
    assert "one/0" not in text
    lines = (tmp_path / "out" / "trace.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [(x["step"], x["sequence"], x["position"], x["told"]) for x in found] == [
        (4, "one/1", 8, 8), (5, "one/1", 9, 9), (6, "one/1", 10, 10), (7, "one/1", 11, 11)
    ]  # fmt: skip
    layer = found[0]["layers"][0]
    assert (layer["keys"], layer["first"], layer["donors"], layer["length"]) == (6, 3, [0], 9)
    assert set(layer["weights"]) >= {"deviation", "bound", "entropy", "share", "largest"}
    picture = ElementTree.fromstring((tmp_path / "out" / "trace.svg").read_text())
    words = [e.text for e in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "layer 2" in words
    assert "keys attended" in words
    assert not [e for e in picture.iter() if (e.get("id") or "").startswith("broken-")]


def test_what_breaks_first_is_said_first(
    contract: Path, planted: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planted.add("position-stays")
    assert call(contract, "--out", tmp_path) == 1
    text = capsys.readouterr().out.splitlines()
    assert text[0].startswith("toy: DIFFERS")
    assert text[1].startswith("  step 1, one/0 at position 3: positions advance by one: the ")
    assert text[2] == "  broken: positions advance by one (first of 6)"
    row = next(line for line in text if line.split()[:3] == ["1", "3", "0"])
    assert row.endswith("<")
    picture = (tmp_path / "trace.svg").read_text()
    assert picture.count('<g id="broken-') == 2 * 3  # three broken rows in both panels


def test_a_long_trace_is_cut_in_the_middle_and_keeps_what_broke(
    contract: Path, planted: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(contract, "--workload", "long", "--path", "chunked(5)") == 0
    text = capsys.readouterr().out
    assert "sequence long/0, 41 rows" in text
    assert "… 17 rows" in text
    planted.add("stale-slot")
    assert call(contract, "--workload", "long") == 1
    assert "broken: keys and values are as written (first of " in capsys.readouterr().out


def test_json_is_one_document(
    contract: Path, planted: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    planted.add("nan-key")
    assert call(contract, "--json") == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["verdict"] == "differs"
    assert found["path"] == "decode"
    assert found["numerics"] == {
        "execution": "float32", "kv_cache": "float32", "device": None,
    }  # fmt: skip
    assert found["broken"][0]["invariant"] == "keys and values are as written"
    assert found["judged"]["weights sum to one"] == 24
    assert "inf" in {x["layers"][0]["weights"]["out_ratio"] for x in found["lines"]}
    assert err.startswith("toy: DIFFERS")


def test_nothing_told_is_void(
    contract: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trace_command, "subject_of", lambda *_: toy.Toy())
    assert call(contract) == 5
    assert "VOID" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--workload", "two"), "the contract has one, long"),
        (("--path", "decoed"), "decode"),
        (("--path", "padded"), "expected one path, padded-left or padded-right"),
        (("--path", "generate"), "--path generate: what its layers look at cannot be reported"),
        (("--path", "compiled"), "--path compiled: what its layers look at cannot be reported"),
        (("--sequence", 2), "workload one has sequences 0 to 1"),
    ],
)
def test_bad_input(
    contract: Path,
    planted: set[str],
    words: tuple[object, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(contract, *words) == 2
    assert said in capsys.readouterr().err


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from kvparity.cli.main import main\n"
        "try: main(['trace', '--help'])\n"
        "except SystemExit as end: sys.exit(end.code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--sequence" in done.stdout
