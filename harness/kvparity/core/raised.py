"""An exception from a subject's own code, in words: what, and the last line of that code."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path
from types import TracebackType

import torch

import kvparity
import kvparity_contracts
import kvparity_kernels

_OURS = tuple(
    f"{Path(str(module.__file__)).parent}/"
    for module in (kvparity, kvparity_contracts, kvparity_kernels)
)
_LIBRARIES = (
    f"{Path(str(torch.__file__)).parent}/",
    f"{sysconfig.get_paths()['stdlib']}/",
    f"{sysconfig.get_paths()['purelib']}/",
)


def told(error: BaseException) -> str:
    """``ZeroDivisionError: no splits (in decode, my_kernels.py:12)``.

    The place is the last one in the subject's own files: not in this project, and not in a library
    unless the subject is one. Without any such place there is none.
    """
    try:
        words = str(error)
    except Exception:  # an exception of the subject's making may fail to say what it is
        words = "(its message cannot be shown)"
    name = type(error).__name__
    said = f"{name}: {words}" if words else name
    place = _last_own(error.__traceback__)
    return said if place is None else f"{said} (in {place})"


def in_one_line(error: BaseException) -> str:
    """The type of an exception of other people's code and at most 300 characters of its words."""
    words = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def trace(error: BaseException) -> str:
    """The whole traceback, for the run folder."""
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # see told
        return "".join(traceback.format_tb(error.__traceback__))


def _last_own(start: TracebackType | None) -> str | None:
    frames = [each for each in traceback.extract_tb(start) if not each.filename.startswith(_OURS)]
    own = [each for each in frames if not each.filename.startswith(_LIBRARIES)]
    found = (own or frames)[-1:]
    return f"{found[0].name}, {Path(found[0].filename).name}:{found[0].lineno}" if found else None
