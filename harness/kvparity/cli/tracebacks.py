"""``--traceback``: where in Python a command failed, in its own process and in those of subjects.

``KVPARITY_TRACEBACK`` asks for the same, and is how processes of subjects hear of it.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "KVPARITY_TRACEBACK"


@contextmanager
def shown(*, asked: bool) -> Iterator[None]:
    """Whether tracebacks are shown, here and in processes that begin meanwhile."""
    before = os.environ.get(VARIABLE)
    if asked:
        os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        if asked and before is None:
            del os.environ[VARIABLE]


def show(error: BaseException) -> None:
    """The traceback on stderr, if it is asked for; Ctrl-C has none."""
    if os.environ.get(VARIABLE) and not isinstance(error, KeyboardInterrupt):
        traceback.print_exception(error, file=sys.stderr)
