"""The caller's process, as it was before: a verification that runs in it sets torch's switches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch

from kvparity.core import torch_flags

_alone = RLock()
"""Switches are the process's: threads take turns. A call within a call goes on."""


@contextmanager
def borrowed() -> Iterator[None]:
    """Put torch's threads, default dtype, TF32 and other switches back; one thread at a time."""
    with _alone:
        yield from _put_back()


def _put_back() -> Iterator[None]:
    flags, threads = torch_flags.read(), torch.get_num_threads()
    dtype = torch.get_default_dtype()
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        torch_flags.put_back(flags)
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
