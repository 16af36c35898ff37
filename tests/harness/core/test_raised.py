"""Exceptions of other people's code as one line of a message."""

from __future__ import annotations

import pytest

from kvparity.core.raised import in_one_line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("  a\n\n b ", "ValueError: a b"),
        ("x" * 400, f"ValueError: {'x' * 300}"),
        ("", "ValueError"),
        (" \n", "ValueError"),
    ],
    ids=["lines", "long", "none", "blank"],
)
def test_an_error_of_others_is_one_line(words: str, said: str) -> None:
    assert in_one_line(ValueError(words)) == said
