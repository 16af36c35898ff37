"""Plots are drawn by matplotlib; where it is missing, a command ends before it computes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from kvparity.cli.main import main
from kvparity.core import plots
from kvparity.core.exit_codes import ExitCode

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def some(figure: Figure) -> None:
    figure.suptitle("a $name$ of 图")
    axes = figure.add_subplot()
    axes.plot([0, 1, 4])
    plots.whole_numbers(axes)
    plots.limit(axes, y=2, name="bound")


def test_a_plot_is_the_same_text_each_time_with_its_words_as_they_are() -> None:
    found = plots.svg(some, 4, 3)
    assert found == plots.svg(some, 4, 3)
    tree = ElementTree.fromstring(found)
    assert "a $name$ of 图" in [each.text for each in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert [each.get("id") for each in tree.iter() if each.get("id") == "bound"] == ["bound"]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["trace", "smoke", "--out"], "trace.svg"),
        (["codec", "smoke", "--out"], "drift.svg"),
        (["bench", "--show", "none.json", "--svg"], "the picture of prices"),
    ],
    ids=lambda words: words[0],
)
def test_a_picture_without_matplotlib_ends_a_command_with_one_sentence(
    words: list[str],
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main([*words, str(tmp_path / "there"), "--json"]) == ExitCode.ERROR
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith(f"kvparity: {what} is drawn by matplotlib, which cannot be imported (")
    assert line.endswith(': pip install "kvparity[report]"')
    assert json.loads(said.out)["exit_code"] == ExitCode.ERROR
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_few_commands_need_is_not_imported_by_all() -> None:
    code = (
        "import sys; from kvparity.cli.main import parser; parser(); import kvparity.run.worker; "
        "rare = {'matplotlib', 'networkx', 'torch._dynamo', 'transformers'}; "
        "print(rare & sys.modules.keys()); "
        "import kvparity.labs.codec.picture, kvparity.relations.trace.picture; "
        "import kvparity.labs.bench.picture; print('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["set()", "False"]
