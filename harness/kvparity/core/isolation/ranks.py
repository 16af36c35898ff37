"""Processes that work on one thing together: the ranks of a group.

They stay for the next group, since each imports torch for seconds. Where one raises, dies or takes
too long, all are ended: the others wait for it in a collective and would never come back.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait

from kvparity.core.errors import SubjectError
from kvparity.core.isolation.child import Message
from kvparity.core.isolation.pool import error_of
from kvparity.core.isolation.process import Process, how
from kvparity_contracts.json_types import JsonValue

_LOOK_S = 0.25
_kept: list[Process] = []


def together(
    function: Callable[..., object], arguments: Sequence[Sequence[object]], limit_s: float
) -> list[JsonValue]:
    """Call ``function`` once in each of so many processes; what they return, as JSON values.

    Rank r is given ``arguments[r]``.

    Raises:
        SubjectError: a rank died, or all did not end within ``limit_s`` seconds; or what one
            raised.
    """
    ranks = range(len(arguments))
    while len(_kept) < len(arguments):
        _kept.append(Process())
    try:
        for rank in ranks:
            _kept[rank].ask(function, *arguments[rank])
        found: dict[int, JsonValue] = {}
        until = time.monotonic() + limit_s
        while len(found) < len(arguments):
            for rank, message in _heard([rank for rank in ranks if rank not in found]):
                if "value" not in message:
                    raise _told(rank, len(ranks), message)
                found[rank] = message["value"]
            if time.monotonic() > until and len(found) < len(arguments):
                late = [
                    f"rank {rank} in {_kept[rank].doing()}" for rank in ranks if rank not in found
                ]
                raise SubjectError(f"not done after {limit_s:g} s, the limit: {'; '.join(late)}")
    except BaseException:
        end()
        raise
    return [found[rank] for rank in ranks]


def _heard(ranks: Sequence[int]) -> list[tuple[int, Message]]:
    """What ranks said within the next moment.

    Raises:
        SubjectError: one of them is gone.
    """
    by_handle = {_kept[rank].answers: rank for rank in ranks}
    found = [
        (by_handle[handle], message)
        for handle in wait(list(by_handle), _LOOK_S)
        if isinstance(handle, int)
        for message in _kept[by_handle[handle]].read()
    ]
    answered = {rank for rank, _ in found}
    for rank in ranks:
        process = _kept[rank]
        if rank not in answered and (process.closed or process.dead()):
            doing = process.doing()
            code = process.kill()
            raise SubjectError(f"rank {rank} is gone: {how(code)}, in {doing}")
    return found


def _told(rank: int, ranks: int, message: Message) -> Exception:
    error = error_of(message)
    return type(error)(f"rank {rank} of {ranks}: {error}")


@atexit.register
def end() -> None:
    """End all processes that were kept."""
    while _kept:
        _kept.pop().kill()
