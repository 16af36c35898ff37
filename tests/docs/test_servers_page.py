"""docs/servers.md: its contract is verified on a stand-in of vLLM, its commands as they are."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from pages import fences
from server_stand_in import StandIn, serving

from kvparity.cli.main import main
from kvparity.core.isolation import inside

PAGE = (Path(__file__).parents[2] / "docs/servers.md").read_text()


def test_the_example_holds_on_a_server_that_agrees_with_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    contract, commands = fences(PAGE)
    monkeypatch.chdir(tmp_path)
    with serving(StandIn(holds=True)) as stand_in, inside.here(True):
        text = contract.text.replace("http://127.0.0.1:8000", stand_in.url)
        assert text != contract.text
        Path(str(contract.title)).write_text(text)
        for command, _ in commands.commands():
            assert main(shlex.split(command)[1:]) == 0, capsys.readouterr().out
