"""How many requests a server runs, read from its own metrics while they run."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from kvparity.servers.http import ServerAddress, ServerError, text

_GAUGE = re.compile(
    rb"^(?:vllm:num_requests_running|sglang:num_running_reqs)(?:\{[^}]*\})? ([0-9.eE+]+)\s*$",
    re.MULTILINE,
)
_PAUSE = 0.004
PATIENCE = 1.0
Answered = TypeVar("Answered")


def running(at: ServerAddress) -> int | None:
    """Requests that run now; None where the server does not show it.

    Raises:
        ServerError: no answer.
    """
    try:
        found = _GAUGE.findall(text(at, "/metrics"))
    except ServerError as error:
        if error.status in (404, 405):
            return None
        raise
    return round(sum(map(float, found))) if found else None


@dataclass(frozen=True)
class RanTogether:
    """``most``: requests that were seen to run at one moment; None: the server does not show it."""

    most: int | None


def together(
    at: ServerAddress, asks: Sequence[Callable[[], Answered]], first: int = 0
) -> tuple[list[Answered], RanTogether]:
    """The answers to all requests, sent at once, and how many were seen to run together.

    ``first``: so many are sent before the others, which wait until these are seen to run, or for
    :data:`PATIENCE` seconds: none of the others then begins alone.

    Raises:
        ServerError: one of them, or the metrics, fails.
    """
    most: int | None = None
    with ThreadPoolExecutor(len(asks)) as pool:
        waiting: list[Future[Answered]] = [pool.submit(ask) for ask in asks[:first]]
        until = time.monotonic() + PATIENCE
        while first and time.monotonic() < until and not any(each.done() for each in waiting):
            most = running(at)
            if most is None or most >= first:
                break
            time.sleep(_PAUSE)
        waiting += [pool.submit(ask) for ask in asks[first:]]
        while not all(each.done() for each in waiting):
            now = running(at)
            if now is None:
                break
            most = max(now, most or 0)
            time.sleep(_PAUSE)
        return [each.result() for each in waiting], RanTogether(most)
