"""What is running, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from kvparity.cli.say import RUNNING, quiet

if TYPE_CHECKING:
    from tqdm import tqdm

EVERY_S = 30.0
"""Seconds between two lines where stderr is no terminal."""


def line(what: str, end: str = "") -> None:
    """On a terminal, ``what`` in place of the line that was written so before."""
    if sys.stderr.isatty() and not quiet():
        print(f"\r\033[K{what}", end=end, file=sys.stderr, flush=True)


class Progress:
    """Counts finished cases, as every other message does, or others of a kind (``of``).

    Call it as often as you like.
    """

    def __init__(self, every: float = EVERY_S, of: str = "cases") -> None:
        self.began = self._said = time.monotonic()
        self.every, self.of = every, of
        self._bar: tqdm[NoReturn] | None = None
        self._terminal = sys.stderr is not None and sys.stderr.isatty()

    def __call__(self, done: int, total: int, what: str) -> None:
        """``done`` of ``total`` cases are finished, and ``what`` runs."""
        if quiet():
            return
        if self._terminal:
            self._draw(done, total, what)
        elif time.monotonic() - self._said >= self.every:
            self._said = time.monotonic()
            seconds = self._said - self.began
            count = f"{done} of {total} {self.of} are finished; " if total else ""
            print(f"{RUNNING}{seconds:.0f} s: {count}{what}", file=sys.stderr, flush=True)

    def _draw(self, done: int, total: int, what: str) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=total or None,
                leave=False,
                dynamic_ncols=True,
                bar_format=f"{{n_fmt}}/{{total_fmt}} {self.of} [{{elapsed}}] {{postfix}}",
            )
        self._bar.total = total or None
        self._bar.n = done
        self._bar.set_postfix_str(what, refresh=True)

    def __enter__(self) -> Progress:
        """The bar comes with the first call."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away, so that no message sticks to it."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def scored() -> Callable[[int, str], None]:
    """Shows how many sequences are scored, and by what."""
    shown = Progress()
    return lambda done, words: shown(done, 0, f"{done} sequences scored ({words})")
