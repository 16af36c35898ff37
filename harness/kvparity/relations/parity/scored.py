"""The tokens of two sides that a contract names, scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from kvparity.core.errors import SubjectError
from kvparity.drift.model_side import ModelSide
from kvparity.drift.settings import Dtype, Settings
from kvparity.drift.sides import MatchedSides, recordings, with_model
from kvparity.relations.asked import Kernels
from kvparity_contracts.sides import ModelSideSpec, Sides, own_numbers


def sides_of(kernels: Kernels) -> Sides:
    """The contract's two sides."""
    found = kernels.contract.subject
    if not isinstance(found, Sides):
        raise TypeError(f"{found.kind} has no two sides")
    return found


def scored(
    kernels: Kernels,
    *,
    dtype: Dtype | None = None,
    weights: Callable[[nn.Module], None] | None = None,
) -> MatchedSides:
    """Both sides read, or one read and its tokens scored by the other.

    ``dtype``: in place of the trainer's. ``weights``: what is done to its weights first.

    Raises:
        RolloutError: a recording cannot be used.
        UnsupportedError, SubjectError: the model cannot be loaded so, or fails.
    """
    sides = sides_of(kernels)
    path = kernels.base / sides.rollout.file
    trainer = sides.trainer
    if not isinstance(trainer, ModelSideSpec):
        other = None if own_numbers(sides) else kernels.base / trainer.file
        return _as_written(recordings(path, other, None), sides.rollout.file, trainer.file)
    folder = kernels.base / trainer.checkpoint
    settings = Settings(**trainer.model_dump(exclude={"kind", "checkpoint"}))
    side = ModelSide(
        folder, replace(settings, dtype=dtype) if dtype else settings, torch.device(kernels.device)
    )
    assert isinstance(side.model, nn.Module)
    used = getattr(side.model.config, "_attn_implementation", None)
    if used != settings.attention:
        raise SubjectError(
            f"attention {settings.attention!r} was asked for, and the model uses {used!r}"
        )
    if weights is not None:
        weights(side.model)
    found = with_model(path, folder, side, lambda _: None)
    return _as_written(found, sides.rollout.file, trainer.checkpoint)


def _as_written(found: MatchedSides, rollout: str, trainer: str) -> MatchedSides:
    """Names of the contract: a run says the same wherever its files lie."""
    return replace(
        found,
        rollout=replace(found.rollout, name=rollout),
        trainer=replace(found.trainer, name=trainer),
    )
