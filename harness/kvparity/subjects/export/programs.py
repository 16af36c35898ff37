"""The traced programs of one decoder, each made when it is first needed and inspected at once."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.export import ExportedProgram

from kvparity.core.errors import SubjectError
from kvparity.subjects.decoder.batch import Batch
from kvparity.subjects.decoder.cache import KVCache
from kvparity.subjects.decoder.model import HEAD_BYTES, Model
from kvparity.subjects.export.inspection import baked, require_clean
from kvparity.subjects.export.leaves import rebuilt, tensors
from kvparity.subjects.export.sizes import Sizes
from kvparity.subjects.export.step import Step, batch_inputs, cache_inputs, require_same_numbers

Kind = Literal["prefill", "decode"]
Sample = tuple[Batch, KVCache]


@dataclass(frozen=True)
class Program:
    """A traced step: ``run(batch, cache) -> logits`` and the program that it runs."""

    run: Callable[[dict[str, Tensor], dict[str, Tensor]], Tensor]
    exported: ExportedProgram


def trace(model: Model, samples: tuple[Sample, Sample]) -> ExportedProgram:
    """Export one step; sizes that differ between the samples are free, all else is fixed.

    Raises:
        SubjectError: it cannot be traced, or something of the sample was baked in.
    """
    (batch, cache), (other, others) = samples
    require_same_numbers(batch, other)
    sizes = Sizes()
    first, second = batch_inputs(batch, cache), batch_inputs(other, others)
    wanted = sizes.free("wanted", _only(first), _only(second), most=block_rows(model))
    shapes = (
        sizes.free("batch", first, second) | wanted,
        sizes.free("cache", cache_inputs(cache), cache_inputs(others)),
    )
    program = _export(Step(model, batch, cache), batch, cache, shapes)
    weights = [*tensors(model.weights).values(), model.cos, model.sin]
    require_clean(baked(program, weights), "decoder step")
    return program


def _only(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The rows that are wanted: how many says nothing of the other sizes."""
    return {"wanted": inputs["wanted"]}


def trace_planted(model: Model, sample: Sample, constants: frozenset[str]) -> ExportedProgram:
    """Export the very step at hand, with inputs kept as constants: a defect, so not inspected."""
    with torch.inference_mode(False):  # what is made in it cannot be written outside
        batch, cache = rebuilt(sample, _copied)
    return _export(Step(model, batch, cache, constants=constants), batch, cache, None)


def _copied(path: str, value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _export(step: Step, batch: Batch, cache: KVCache, shapes: Any) -> ExportedProgram:
    inputs = (batch_inputs(batch, cache), cache_inputs(cache))

    def run() -> ExportedProgram:
        with torch.inference_mode(False), torch.no_grad():
            return torch.export.export(step, inputs, dynamic_shapes=shapes, strict=False)

    try:
        # An empty context: no listener and no launch record of the caller becomes part of it.
        return contextvars.Context().run(run)
    except Exception as error:
        raise SubjectError(
            f"torch.export of a decoder step failed: {type(error).__name__}: {error}"
        ) from error


def block_rows(model: Model) -> int:
    """How many rows of logits a program computes at most."""
    return max(1, HEAD_BYTES // (4 * model.config.vocab))
