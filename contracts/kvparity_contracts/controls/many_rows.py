"""Several rows of a sequence behind a long cache, as speculative decoding verifies drafts."""

from __future__ import annotations

from functools import partial

from kvparity_contracts.controls.base import PAIRS, Control
from kvparity_contracts.paths import PathName

_verified = partial(
    Control, subjects=PAIRS, paths=("verify",), path=PathName("verify", 3), generate=3,
    cause="mask or window", born="attention",
)  # fmt: skip

MANY_ROWS = (
    _verified(
        "window-of-last-row",
        "all rows of a step of up to 8 see the window of its last row",
        "flashinfer-ai/flashinfer#3864",
        keys="window",
        features=("window",),
    ),
    _verified(
        "draft-sees-later",
        "all rows of a step see all of its drafts, those behind their own, too",
        "ROCm/aiter#3046",
    ),
)
