"""Backends by the names that contracts give them."""

from __future__ import annotations

from kvparity.decoder.model import AttentionOps, Ops
from kvparity.subject import UnsupportedError

FIXED = "fixed-order"
SDPA = ("sdpa", "sdpa-math", "sdpa-flash", "sdpa-efficient", "sdpa-cudnn")
FLASHINFER = ("flashinfer", "flashinfer-fixed", "flashinfer-whole")
ATTENTION = (FIXED, *SDPA, *FLASHINFER)
OPERATIONS = (FIXED, "torch")


def attention_ops(name: str) -> AttentionOps:
    """Attention by name, with the signatures of ``kvparity_kernels.attention``.

    What keeps plans and indices for the layers of a step is made anew by every call of this
    function. Raises ``UnsupportedError`` for a name that does not exist. What a backend cannot do
    is ``UnsupportedError`` when it is called; what it needs and is not there, ``SubjectError``.
    """
    if name == FIXED:
        return AttentionOps()
    if name in SDPA:
        from kvparity.decoder.backends.sdpa import Sdpa

        sdpa = Sdpa(name.partition("-")[2] or None)
        return AttentionOps(prefill=sdpa.prefill, decode=sdpa.decode)
    if name in FLASHINFER:
        from kvparity.decoder.backends.flashinfer import FlashInfer

        paged = FlashInfer(name)
        return AttentionOps(prefill=paged.prefill, decode=paged.decode)
    raise UnsupportedError(f"attention {name!r} is unknown; expected one of {', '.join(ATTENTION)}")


def operations(name: str) -> Ops:
    """What is computed beside attention, by name; ``UnsupportedError`` for one that is unknown."""
    if name == FIXED:
        return Ops()
    if name == "torch":
        from kvparity.decoder.backends.torch_operations import TORCH

        return TORCH
    raise UnsupportedError(
        f"operations {name!r} are unknown; expected one of {', '.join(OPERATIONS)}"
    )
