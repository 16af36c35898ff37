"""The page holds what the report says, opens offline, and does not grow with the recording."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, read_by_people
from rollouts.recorded import LAYOUTS, written

from kvparity.cli.main import main
from kvparity.gaps.page import page
from kvparity.gaps.report import Source, report
from kvparity.gaps.token_map import MOST_COLUMNS, MOST_ROWS
from kvparity.rollouts.anomalies import Anomalies
from kvparity.rollouts.pairing import Matched
from kvparity.rollouts.tokens import ScoredSequence, Tokens

SIDE = Source("</script><b>", "RolloutWriter")


def _page(tokens: Tokens) -> tuple[str, dict[str, object]]:
    found = report(tokens, Matched(), Anomalies(), rollout=SIDE, trainer=SIDE, limits={})
    text = page(found, tokens, {})
    (data,) = re.findall(r'<script id="data"[^>]*>(.*?)</script>', text, re.DOTALL)
    return text, json.loads(data)


def _tokens(lengths: list[int], first: int = 0) -> Tokens:
    def one(name: int, n: int) -> ScoredSequence:
        rollout = np.full(n, -2, dtype=np.float32)
        at = np.arange(first, first + n, dtype=np.int32)
        d = np.where(at % 7 == 3, 0.25 * (name + 1), 0).astype(np.float32)
        return ScoredSequence(str(name), rollout, rollout + d, at, at)

    return Tokens.of(one(name, n) for name, n in enumerate(lengths))


def test_a_cell_is_a_token() -> None:
    tokens = _tokens([9, 4], first=3)
    text, data = _page(tokens)
    shown = data["map"]
    assert (shown["columns"], shown["step"], shown["sequences"]) == (9, 1, 2)  # type: ignore[index]
    first, second = shown["rows"]  # type: ignore[index]
    assert [cell[0] for cell in first] == [0.25, 0, 0, 0, 0, 0, 0, 0.25, 0]
    assert [cell and cell[0] for cell in second] == [0.5, 0, 0, 0, None, None, None, None, None]
    token = shown["tokens"][second[0][1]]  # type: ignore[index]
    assert (token["sequence"], token["position"], token["d"]) == ("1", 3, 0.5)
    assert (token["rollout_bits"], token["trainer_bits"]) == ("0xc0000000", "0xbfc00000")
    assert len(data["worst"]) == 3  # type: ignore[arg-type]
    assert not re.search(r"https?://|<link|src=", text)


def test_names_are_no_markup() -> None:
    text, data = _page(_tokens([3]))
    assert "<b>" not in text
    assert data["report"]["rollout"]["name"] == SIDE.name  # type: ignore[index]


def test_numbers_that_json_lacks() -> None:
    """A logprob may be far off: e to it is infinite then."""
    far = np.float32([-3e38, -2])
    at = np.arange(2, dtype=np.int32)
    tokens = Tokens.of([ScoredSequence("a", far, np.float32([-1, -2]), at, at)])
    _, data = _page(tokens)
    assert data["sequences"][0]["k3"] == "inf"  # type: ignore[index]


def test_it_does_not_grow() -> None:
    text, data = _page(_tokens([3000] + [5] * 400))
    shown = data["map"]
    assert len(shown["rows"]) == MOST_ROWS  # type: ignore[index]
    assert shown["columns"] <= MOST_COLUMNS  # type: ignore[index]
    assert all(len(row) == shown["columns"] for row in shown["rows"])  # type: ignore[index]
    assert (shown["step"], shown["sequences"]) == (12, 401)  # type: ignore[index]
    assert len(text) < 500_000


@pytest.mark.parametrize("tokens", [Tokens.of([]), _tokens([2])])
def test_nothing_to_see(tokens: Tokens) -> None:
    shown = _page(tokens)[1]["map"]
    assert (shown["low"], shown["high"]) == (0, 0)  # type: ignore[index]


def test_the_command_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(written(LAYOUTS["slime train shard"](), tmp_path / "shard.json"))
    assert main(["drift", path, "--html", str(tmp_path / "page.html")]) == 1
    assert "7 tokens compared" in capsys.readouterr().out
    assert "slime train shard" in (tmp_path / "page.html").read_text()
    assert main(["drift", path, "--html", str(tmp_path / "page.html")]) == 1, "again"


@pytest.mark.browser
def test_people_can_read_it(tmp_path: Path, browser: Browser) -> None:
    """With keys alone, too: the cells of the map, and the worst tokens."""
    file = tmp_path / "page.html"
    file.write_text(_page(_tokens([40, 4]))[0])
    read_by_people(browser, file)
    told = "document.querySelector('#cell').textContent"

    def focused(what: str) -> bool:
        return bool(browser.value(f"document.activeElement.matches('{what}')"))

    def walked_to(what: str) -> None:
        for _ in range(30):
            browser.press("Tab")
            if focused(what):
                return
        raise AssertionError(f"no Tab leads to {what}")

    walked_to("#map")
    for key, words in (
        ("ArrowRight", "sequence 0, position 0,"),
        ("ArrowRight", "sequence 0, position 1,"),
        ("ArrowDown", "sequence 1, position 1,"),
        ("ArrowUp", "sequence 0, position 1,"),
        ("ArrowUp", "sequence 0, position 1,"),
    ):
        browser.press(key)
        assert words in browser.value(told)
    walked_to("tr.pick")
    browser.press("Enter", "\r")
    assert "sequence 1, position 3," in browser.value(told)
    assert browser.told == []
