"""The page about locating, and the command: on the run that the README shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from kvparity.cli.main import main
from kvparity_contracts.causes import CauseKind

PAGE = (Path(__file__).parents[2] / "docs/locate.md").read_text()
SHOWN = re.findall(r"```\n(c000: .*?)```", PAGE, re.DOTALL)[0]


def shape(text: str) -> list[str]:
    """What does not depend on the machine: words, without numbers and what follows them."""
    return [re.sub(r"[-\d.]+(e-\d+)?", "N", line)[:60] for line in text.strip().splitlines()]


def test_the_command_prints_what_the_page_shows(
    third_party: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "births.svg"
    assert main(["locate", str(third_party / "run"), "c000", "--svg", str(picture)]) == 0
    found, shown = capsys.readouterr().out.splitlines(), shape(SHOWN)
    assert found.pop() == f"written: {picture}"
    printed = shape("\n".join(found))
    assert printed[0] == shown[0]
    assert printed[-1] == shown[-1]
    assert [line[:12] for line in shown[1:6]] == [line[:12] for line in printed[1:6]]
    assert "self_attn attention" in "\n".join(found)
    assert picture.read_text().startswith("<?xml")


def test_the_run_located_its_case_and_has_every_birth(third_party: Path) -> None:
    document = json.loads((third_party / "run" / "located" / "c000.json").read_text())
    printed = [line.strip() for line in (third_party / "out").read_text().splitlines()]
    assert {line.strip() for line in document["words"].splitlines()} < set(printed)
    assert document["complete"] is True
    assert document["births"]
    assert document["still_differing_rows"] == 0
    assert document["cause"]["kind"] in get_args(CauseKind)


def test_what_cannot_be_located_is_refused(
    third_party: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for arguments, words in (
        ([str(tmp_path), "c000"], "holds no run"),
        ([str(third_party / "run"), "c999"], "has no case 'c999'"),
        ([str(third_party / "run"), "c000", "--svg", str(tmp_path)], "cannot be written"),
    ):
        assert main(["locate", *arguments]) == 2
        out, err = capfd.readouterr()
        assert words in err
        assert ("cause: " in out) == ("--svg" in arguments)  # the account is not lost


def test_every_kind_of_cause_has_its_row() -> None:
    assert set(re.findall(r"^\| `([a-z ]+)` \|", PAGE, re.MULTILINE)) == {*get_args(CauseKind)}
