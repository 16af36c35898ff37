"""Colours of what a terminal shows: verdicts, planted defects, and what went wrong.

``NO_COLOR`` (no-color.org) switches them off, ``FORCE_COLOR`` (force-color.org) on, also where
nothing is a terminal. What is kept or read by programs has none.
"""

from __future__ import annotations

import os
import re
from typing import TextIO

_GREEN, _RED, _YELLOW = "32", "31", "33"
_WORDS = {
    "holds": _GREEN, "HOLDS": _GREEN, "caught": _GREEN, "ready": _GREEN,
    "DIFFERS": _RED, "ERROR": _RED, "MISSED": _RED, "NOT READY": _RED, "error": _RED,
    "VOID": _YELLOW, "warning": _YELLOW,
}  # fmt: skip
_PLACES = re.compile(
    r"""^(?:
        (?P<before>\[)(?=(?:holds|DIFFERS|VOID|ERROR)\])   # [holds]   a check
        | (?P<name>[^\s:]+:\s)(?=[A-Z]+\b)                 # smoke: HOLDS
        | (?P<row>\s{4}\S+\s+)(?=(?:caught|MISSED)\s)      # stale-slot  caught
        | (?P<place>(?:\S+:\d+:\d+|kvparity[\ \w-]*):\s)(?=(?:error|warning)\b)
        | (?=(?:ready|NOT\ READY)\b)
    )(?P<word>holds|HOLDS|caught|ready|DIFFERS|ERROR|MISSED|NOT\ READY|error|VOID|warning)\b""",
    re.MULTILINE | re.VERBOSE,
)


def wanted(stream: TextIO) -> bool:
    """Whether this stream is shown in colour."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return os.environ.get("TERM") != "dumb" and stream.isatty()


def painted(text: str) -> str:
    """``text`` with the words that decide in their colours."""
    return _PLACES.sub(_paint, text)


def _paint(found: re.Match[str]) -> str:
    word = found["word"]
    before = found[0].removesuffix(word)
    return f"{before}\x1b[1;{_WORDS[word]}m{word}\x1b[0m"
