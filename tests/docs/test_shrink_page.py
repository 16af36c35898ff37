"""The page about shrinking: its example is run, as it is shown."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import kvparity
from kvparity.cli.main import main
from kvparity.core.isolation.inside import here

DOCS = Path(__file__).parents[2] / "docs"
PAGE, RESULTS = (DOCS / "shrink.md").read_text(), DOCS / "results"
SHOWN = re.findall(r"```\n(c000: .*?)```", PAGE, re.DOTALL)[0].splitlines()


def shape(line: str) -> str:
    """What does not depend on the machine or the folder."""
    return re.sub(
        r"\d+ cases, \d+ s", "N cases, N s", re.sub(r" \S*run/shrink", " run/shrink", line)
    )


@pytest.mark.slow
def test_another_tile_in_decode_is_left_with_one_row_beside_its_edge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for title, text in re.findall(r"```\w+ title=(\S+)\n(.*?)```", PAGE, re.DOTALL):
        (tmp_path / title).write_text(text)
    run, asked = str(tmp_path / "run"), ["--jobs", "1", "--no-locate"]
    with here():
        assert main(["verify", str(tmp_path / "tiles.yaml"), "--run-dir", run, *asked]) == 1
        capsys.readouterr()
        assert main(["shrink", run, "c000"]) == 0
    printed = [shape(line) for line in capsys.readouterr().out.splitlines()]
    shown = [shape(line) for line in SHOWN]
    dots = shown.index("...")
    assert printed[:dots] == shown[:dots]
    assert printed[-1] == shown[-1]
    assert "  heads: {query: 1, kv: 1, dim: 16}" in printed


def test_what_was_measured_is_as_small_as_the_page_says() -> None:
    rows = json.loads((RESULTS / "shrunk-defects.json").read_text())
    matrix = json.loads((RESULTS / "fault-matrix.json").read_text())
    named = [row["fault"] for row in rows]
    for fault in (each["fault"] for each in matrix if each["fault"] != "none"):
        assert any(name.startswith(fault) for name in named), fault
    for row in rows:
        assert row["edge"] is None or abs(row["keys"] - row["edge"]) <= 2, row
        assert row["sequences"] <= 2, row
        assert row["kv_heads"] == 1, row
        assert row["minimal"], row
        assert row["passes"], row
    most = re.findall(r"in at most (\d+) s each", PAGE)
    assert max(row["seconds"] for row in rows) <= int(most[0]) <= 60


def test_a_model_fails_alike_where_the_same_operation_parts_first(third_party: Path) -> None:
    found = kvparity.shrink(third_party / "run", "c000", budget=1e-9)
    assert found.failure == "invariance: model.layers.#.self_attn attention"
    assert not found.minimal
