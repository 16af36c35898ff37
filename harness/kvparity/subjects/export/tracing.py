"""torch.export called so that nothing of its caller becomes part of the program."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import TypeVar

import torch

from kvparity.core.errors import SubjectError
from kvparity.core.raised import in_one_line

R = TypeVar("R")


def traced(what: str, export: Callable[[], R]) -> R:
    """What ``export`` returns, run without gradients and in an empty context: no listener and no
    launch record of the caller is seen by the tracer.

    Raises:
        SubjectError: ``what`` cannot be exported.
    """

    def run() -> R:
        with torch.inference_mode(False), torch.no_grad():
            return export()

    try:
        return contextvars.Context().run(run)
    except Exception as error:
        raise SubjectError(f"torch.export of {what} failed: {in_one_line(error)}") from error
