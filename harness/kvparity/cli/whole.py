"""A whole verb in a process of its own: for those that load a subject and give one answer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TypedDict

from kvparity.cli import say
from kvparity.cli.progress import Progress
from kvparity.core.exit_codes import ExitCode

VERBS = ("trace", "order", "replay", "locate", "codec")
"""Which load a subject. ``verify`` has processes of its own, and so has what ``audit`` compiles."""
_CODES = {int(code) for code in ExitCode}


class Answered(TypedDict):
    """What a verb came to: its exit code, and what it printed on stdout."""

    code: int
    text: str


def run(answer: Callable[..., Answered], given: Sequence[str], *, json: bool) -> int:
    """Run ``answer`` with the command line ``given`` apart; print what it says; its exit code."""
    import math

    from kvparity.core.isolation.pool import Apart, PoolTask

    shown = Progress()

    def tell(what: str) -> None:
        if not sys.stderr.isatty():  # there the command itself shows what it does
            shown(0, 0, what)

    with Apart(1, math.inf, tell) as pool:
        (found,) = pool.run([PoolTask(answer, (list(given),))])
        pool.finish()
    code, text = found.get("code"), found.get("text")
    if code not in _CODES or not isinstance(text, str):
        raise ValueError(f"a process returned {found!r}")
    if json and say.passed_on(text):
        return int(code)
    say.script(text, end="")
    return int(code)
