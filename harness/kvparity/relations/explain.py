"""What a person is told beside the numbers of a difference: names of columns, causes of NaN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from kvparity.record.execute import Record
from kvparity.record.path_run import PathRun
from kvparity.relations.accuracy.line import AccuracyDetails
from kvparity.relations.bits_and_limits import Comparison
from kvparity.subjects.attention_calls import PairCall, with_keys
from kvparity.subjects.base import NamesColumns, Subject, column_name
from kvparity.subjects.pair.model import Pair
from kvparity.subjects.pair.subject import AttentionSubject


def named(subject: Subject, found: Comparison) -> Comparison:
    """The same comparison with the names of the columns of its first and worst token."""
    if not isinstance(subject, NamesColumns):
        return found
    first = found.first_divergence
    if first is not None:
        first = first.model_copy(update={"name": column_name(subject, first.column)})
    details = found.details
    if isinstance(details, AccuracyDetails):
        spots = {"first": details.first, "worst": details.worst}
        told = {
            key: spot.model_copy(update={"name": column_name(subject, spot.column)})
            for key, spot in spots.items()
            if spot is not None
        }
        details = details.model_copy(update=told)
    return replace(found, first_divergence=first, details=details)


def nan_cause(side: PathRun, record: Record) -> str | None:
    """Why rows of a kernel pair are NaN, where it is the memory that nobody wrote; else None.

    The path is run again with one kernel given zeros where it was given NaN. If its rows are then
    finite, that kernel let through what it must mask.
    """
    subject = side.subject
    if not isinstance(subject, AttentionSubject) or bool(record.finite.all()):
        return None
    pair = subject.pair
    for name, other, words in (
        ("decode", replace(pair, decode=_without_nan(pair.decode)),
         "slots past kv_lens hold NaN, and decode multiplies masked values"),
        ("prefill", replace(pair, prefill=_without_nan(pair.prefill)),
         "memory beside the keys of a sequence holds NaN, and prefill multiplies masked values"),
    ):  # fmt: skip
        if bool(_rows(side, subject, other).finite.all()):
            return f"{words} (0 x NaN is NaN); select with a mask in {name}, or skip them"
    return None


def _rows(side: PathRun, subject: AttentionSubject, pair: Pair) -> Record:
    return replace(side, subject=subject.with_pair(pair)).run()


def _without_nan(kernel: Callable[[PairCall], object]) -> Callable[[PairCall], object]:
    def clean(x: Tensor) -> Tensor:
        wide = x.is_floating_point() and x.element_size() > 1
        return torch.nan_to_num(x, nan=0.0) if wide else x

    return lambda call: kernel(with_keys(call, clean))
