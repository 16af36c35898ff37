"""Foreign text on a terminal: what cannot be seen is written out, and what is long is cut."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvparity_contracts.plain import MOST, plain, plain_lines
from kvparity_contracts.problems import Problem


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07\x1b[2Jok", r"\x1b]0;owned\x07\x1b[2Jok"),
        ("safe\u202egnp.exe", r"safe\u202egnp.exe"),
        ("two\r\nlines\tand a tab", "two lines and a tab"),
        ("nothing\u200b\u2066here", r"nothing\u200b\u2066here"),
        ("\x9b31mred", r"\x9b31mred"),
        ("half \ud800", r"half \ud800"),
        ("größer −1 → 2", "größer −1 → 2"),
    ],
)
def test_what_cannot_be_seen_is_written_out(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(st.text(), st.integers(20, 200))
def test_any_text_is_one_short_line_that_can_be_seen(text: str, most: int) -> None:
    found = plain(text, most)
    assert len(found) <= most
    assert not any(unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") for each in found)
    assert found.encode("utf-8") is not None


def test_long_text_keeps_its_beginning_and_its_end() -> None:
    found = plain(f"begin{'x' * 10**6}end")
    assert (len(found) <= MOST, found[:5], found[-3:]) == (True, "begin", "end")
    assert " ... " in found


def test_lines_stay_lines() -> None:
    assert plain_lines("a\nb\x1b[1m\n") == "a\nb\\x1b[1m\n"


def test_a_problem_is_plain_wherever_its_words_come_from() -> None:
    told = str(Problem("\x1bf.yaml", 1, 2, "k\u202e", "found '\x07'", "a\nb", "\x1b[1m"))
    assert told.isprintable()
    assert told.startswith("\\x1bf.yaml:1:2: k\\u202e: found '\\x07', expected a b")
