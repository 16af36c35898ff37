"""torch's flex_attention, which is compiled, and which not every machine can compile."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kvparity.core.errors import UnsupportedError
from kvparity.core.raised import in_one_line
from kvparity.subjects.hf.run_counts import Observation
from kvparity.subjects.hf.session import Host


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Hide what transformers 5.23 itself does to torch 2.13's flex_attention: a deprecated flag."""
    if name != "flex_attention":
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


def tried(subject: Host) -> None:
    """One forward of two tokens of a transformers subject.

    Raises:
        UnsupportedError: torch cannot compile it here.
    """
    try:
        with torch.inference_mode(), subject.observing(Observation(order=subject.order)):
            subject.model(input_ids=torch.zeros(1, 2, dtype=torch.int64, device=subject.device))
    except Exception as error:
        raise UnsupportedError(
            f"attention flex_attention does not run with torch {torch.__version__} on "
            f"{subject.device}: {in_one_line(error)}"
        ) from error
