"""The share of each stage in the error and in the drift: what would be gone without it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kvparity.labs.codec.capture import Captured
from kvparity.labs.codec.coding import Coding
from kvparity.labs.codec.errors import layer_errors, mean_square
from kvparity.labs.codec.protocol import STAGES, Stage
from kvparity.labs.codec.registry import CodecPair
from kvparity.labs.codec.runs import CodedRun, Runs


@dataclass(frozen=True)
class StageShare:
    """One stage, of keys and values in all layers.

    ``rel_rms_without``: the error with this stage exact, ``rel_rms_alone``: with all others exact
    (roots of means over layers, keys and values). ``share_of_error``: the part of the mean square
    that is gone without it. ``without``: the drift with this stage exact, and ``share_of_drift``
    the part of approx_kl0 that is gone; None with a ``reason`` where no run can show it. Shares
    need not add up to 1: stages work on each other's output, and one may hide another.
    """

    stage: Stage
    rel_rms_without: float
    rel_rms_alone: float
    share_of_error: float | None
    without: CodedRun | None
    share_of_drift: float | None
    reason: str | None


def stages_of(pair: CodecPair) -> tuple[Stage, ...]:
    """The stages that either codec has, in order."""
    return tuple(stage for stage in STAGES if stage in (*pair.k.stages, *pair.v.stages))


def unseen(
    stage: Stage, dtype: torch.dtype, cache: torch.dtype, execution: torch.dtype
) -> str | None:
    """Why no run can show ``stage`` exact, or None.

    Codes that are dequantised to ``dtype`` lie in a ``cache``, and attention multiplies in the
    ``execution`` dtype: numbers of more digits would be rounded there.
    """
    if stage != "accumulation":
        return None
    for held, words in ((cache, "the cache holds"), (execution, "attention multiplies in")):
        if held != torch.float32 or dtype == torch.float32:
            return f"{words} {str(held).removeprefix('torch.')} and rounds to it itself"
    return None


def stage_shares(
    runs: Runs,
    coding: Coding,
    layers: Sequence[Captured],
    all_on: CodedRun,
    execution: torch.dtype,
) -> tuple[StageShare, ...]:
    """Every stage of the pair switched to exact, one at a time. ``all_on``: the drift with none."""
    every = frozenset(stages_of(coding.pair))
    whole = mean_square(layer_errors(coding, layers))
    found = []
    for stage in stages_of(coding.pair):
        left = coding.with_exact(frozenset({stage}))
        without = mean_square(layer_errors(left, layers))
        alone = mean_square(layer_errors(coding.with_exact(every - {stage}), layers))
        reason = unseen(stage, coding.dtype, runs.reference.dtype, execution)
        drifted = runs.measure(left) if reason is None else None
        found.append(
            StageShare(
                stage=stage,
                rel_rms_without=math.sqrt(without),
                rel_rms_alone=math.sqrt(alone),
                share_of_error=1 - without / whole if whole else None,
                without=drifted,
                share_of_drift=_gone(drifted, all_on),
                reason=reason,
            )
        )
    return tuple(found)


def _gone(without: CodedRun | None, all_on: CodedRun) -> float | None:
    if without is None or not all_on.approx_kl0:
        return None
    return 1 - without.approx_kl0 / all_on.approx_kl0
