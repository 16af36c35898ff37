"""Traces of one step of the reference decoder, inspected at once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from kvparity.core.errors import SubjectError
from kvparity.subjects.decoder.batch import StepRows
from kvparity.subjects.decoder.cache import KVCache
from kvparity.subjects.decoder.model import HEAD_BYTES, DecoderModel
from kvparity.subjects.export.inspection import baked, require_clean
from kvparity.subjects.export.leaves import rebuilt, tensors
from kvparity.subjects.export.step import (
    StepModule,
    batch_inputs,
    cache_inputs,
    require_same_numbers,
)
from kvparity.subjects.export.tracing import traced

Sample = tuple[StepRows, KVCache]
FreeSizes = dict[str, dict[int, Dim]]
"""Per tensor: dimension -> its size."""


def trace(model: DecoderModel, samples: tuple[Sample, Sample]) -> ExportedProgram:
    """Export one step; sizes that differ between the samples are free, all else is fixed.

    Raises:
        SubjectError: it cannot be traced, or something of the sample was baked in.
    """
    (batch, cache), (other, others) = samples
    require_same_numbers(batch, other)
    first, second = batch_inputs(batch, cache), batch_inputs(other, others)
    # How many rows are wanted says nothing of the other sizes, so it is a group of its own.
    rows, others_rows = ({"wanted": inputs["wanted"]} for inputs in (first, second))
    wanted = _free("wanted", rows, others_rows, most=block_rows(model))
    shapes = (
        _free("batch", first, second) | wanted,
        _free("cache", cache_inputs(cache), cache_inputs(others)),
    )
    program = _export(StepModule(model, batch, cache), batch, cache, shapes)
    weights = [*tensors(model.weights).values(), model.cos, model.sin]
    require_clean(baked(program, weights), "decoder step")
    return program


def _free(
    group: str, first: Mapping[str, Tensor], second: Mapping[str, Tensor], most: int = 2**31 - 1
) -> FreeSizes:
    """The dimensions in which two samples differ; the same pair of sizes is one size, once named.

    Raises:
        SubjectError: the samples do not hold the same tensors.
    """
    if list(first) != list(second):
        raise SubjectError(f"two samples of one step hold {sorted(first)} and {sorted(second)}")
    dims: dict[tuple[int, int], Dim] = {}
    found: FreeSizes = {}
    for path, a in first.items():
        b = second[path]
        if a.dim() != b.dim() or a.dtype != b.dtype:
            raise SubjectError(
                f"two samples of {path} are {a.dtype}{list(a.shape)} and {b.dtype}{list(b.shape)}"
            )
        found[path] = {
            place: dims.setdefault((n, m), Dim(f"{group}_{len(dims)}", min=1, max=most))
            for place, (n, m) in enumerate(zip(a.shape, b.shape, strict=True))
            if n != m
        }
    return found


def trace_planted(
    model: DecoderModel, sample: Sample, constants: frozenset[str]
) -> ExportedProgram:
    """Export the very step at hand, with inputs kept as constants: a defect, so not inspected."""
    with torch.inference_mode(False):  # what is made in it cannot be written outside
        batch, cache = rebuilt(sample, lambda _, x: x.clone() if isinstance(x, Tensor) else x)
    return _export(StepModule(model, batch, cache, constants=constants), batch, cache, None)


def _export(
    step: StepModule, batch: StepRows, cache: KVCache, shapes: tuple[FreeSizes, FreeSizes] | None
) -> ExportedProgram:
    inputs = (batch_inputs(batch, cache), cache_inputs(cache))
    return traced(
        "a decoder step",
        lambda: torch.export.export(step, inputs, dynamic_shapes=shapes, strict=False),
    )


def block_rows(model: DecoderModel) -> int:
    """How many rows of logits a program computes at most."""
    return max(1, HEAD_BYTES // (4 * model.config.vocab))
