"""Two records side by side, on the device: their bits, and what a difference would do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

import torch
from pydantic import Field
from torch import Tensor

from kvparity.core.bits import differing, pattern, ulps
from kvparity.core.drift import drift
from kvparity.core.values import Texts, plain
from kvparity.core.words import UNFINITE, some
from kvparity.plan.results import Details, Divergence, Outcome, SideName
from kvparity.plan.schedule import Plan
from kvparity.record.execute import Record


@dataclass(frozen=True)
class Comparison:
    """What one case showed. ``tokens`` counts the compared rows, positions or probes.

    ``of``: how many rows there are, where those that are compared were chosen; else None.

    ``rollout``: which side's logprobs d is taken from; None where no logprob is compared.
    ``details``: what only its relation has, as its case's line has it; None where there is nothing.
    """

    outcome: Outcome
    reason: str
    tokens: int = 0
    of: int | None = None
    differing_tokens: int = 0
    differing_rows: int = 0
    max_ulp: int | None = None
    max_abs: float | None = None
    max_abs_dlogp: float | None = None
    approx_kl0: float | None = None
    clipfrac0: float | None = None
    rollout: SideName | None = None
    first_divergence: Divergence | None = None
    details: Details | None = None


class InvarianceDetails(Details):
    """In the first case of a workload and its formats whose bits differ."""

    faults: Texts = ()
    """for a kernel pair (for accuracy too), what was wrong with rows that belong to no sequence"""
    repeats: dict[str, bool] = Field(default_factory=dict)
    """for each side, by path, whether a rerun gave the same bits"""


class Counted(TypedDict, total=False):
    """How much of a comparison was compared, and differs; see :class:`Comparison`."""

    tokens: int
    differing_tokens: int
    differing_rows: int


class Measured(TypedDict, total=False):
    """What was measured of it; see :class:`Comparison`."""

    max_ulp: int
    max_abs: float
    max_abs_dlogp: float
    approx_kl0: float
    clipfrac0: float
    rollout: SideName


MEASURES = ("max_abs", "max_abs_dlogp", "approx_kl0", "clipfrac0")
"""What limits are set for."""


def measures(found: Comparison) -> dict[str, float | str]:
    """The measures that a comparison has, as JSON values."""
    values = {name: getattr(found, name) for name in MEASURES}
    return {name: plain(value) for name, value in values.items() if value is not None}


def number(x: Tensor) -> float | str:
    """A one-element tensor as JSON has it."""
    return plain(float(x))


def _hex(digest: Tensor) -> str:
    return f"0x{int(digest) & (2**64 - 1):016x}"


def _pairing(reference: Record, candidate: Record) -> Comparison | None:
    """Why two records cannot be compared at all, or None if they can."""
    if not candidate.index or not reference.index:
        return Comparison("void", "no token was compared")
    if len(reference.index) != len(candidate.index):
        return Comparison(
            "void",
            f"the two sides differ in length: {len(reference.index)} against "
            f"{some(len(candidate.index), 'token')}",
        )
    if reference.index != candidate.index:
        return Comparison("void", "the two sides hold different positions")
    return None


def same_bits(first: Record, second: Record) -> bool:
    """Whether a path that was run twice gave every value and every row twice."""
    return (
        first.index == second.index
        and not bool(differing(first.values, second.values).any())
        and torch.equal(first.digests, second.digests)
    )


def same_work(reference: Record, candidate: Record) -> str | None:
    """Why equal bits would show nothing, or None."""
    if not reference.plan.generate and not candidate.plan.generate:
        same_steps = reference.plan.schedule == candidate.plan.schedule
        same_members = reference.plan.members == candidate.plan.members
        if same_steps and same_members and reference.plan.layout == candidate.plan.layout:
            return "both sides ran the same steps"
        launched = reference.launches.counts
        steps = len(reference.plan.schedule), len(candidate.plan.schedule)
        if launched and launched == candidate.launches.counts and steps[0] != steps[1]:
            different = f"for {some(steps[0], 'step')} and {steps[1]}"
            return f"both sides launched the same kernels equally often, {different}"
    return ran_as_asked(reference, candidate)


def other_work(side: str, record: Record) -> str | None:
    """Where a record did not run what its plan asks for, or None."""
    if record.unproved is not None:
        return f"the {side}: {record.unproved}"
    asked = _decodes(record.plan)
    # The least of all counts: where a kernel counts once for each layer, a few steps give many.
    counts = [n for name, n in record.observed.items() if name.endswith(".decode")]
    ran = min(counts, default=0)
    if asked and not ran:
        return f"the {side} asks for single-query decode, but no decode was observed"
    if ran < asked:
        return f"the {side} asks for {asked} decode steps, but only {ran} were observed"
    verifies = any(span.verify for step in record.plan.schedule for span in step)
    if any(counts) and not asked and not verifies:  # whose rows either function may compute
        return f"the {side} asks for prefill only, but decode was observed"
    program = record.plan.layout.program
    if program != "eager" and "program.decode" not in record.observed:
        return f"the {side} asks for its {program} program, but none was observed"
    return None


def _decodes(plan: Plan) -> int:
    """Forward calls of a plan that hold a single-query decode; each is seen at least once."""
    if plan.generate:
        return sum(member.length - member.prompt - 1 for member in plan.members)
    return sum(any(span.decode for span in step) for step in plan.schedule)


def ran_as_asked(reference: Record, candidate: Record) -> str | None:
    """Why equal bits would show nothing though both sides may run the same steps, or None."""
    return other_work("reference", reference) or other_work("path", candidate)


def invariance(
    reference: Record,
    candidate: Record,
    *,
    column: int | None,
    idle: Callable[[Record, Record], str | None] = same_work,
) -> Comparison:
    """Compare bits: of one column of values (None: of all), and of the whole rows' digests.

    ``idle``: why equal bits of two sides would show nothing, or None.
    """
    unpaired = _pairing(reference, candidate)
    if unpaired is not None:
        return unpaired
    device = reference.values.device
    a, b = reference.values, candidate.values.to(device)
    if a.shape != b.shape:
        return Comparison("void", f"rows of {a.shape[1]} against rows of {b.shape[1]} values")
    if column is not None:
        a, b = a[:, column : column + 1], b[:, column : column + 1]
    value_bits = differing(a, b)
    value_off = value_bits.any(-1)
    row_off = reference.digests != candidate.digests.to(device)
    target_off = reference.targets != candidate.targets.to(device)
    bad = ~(reference.finite & candidate.finite.to(device))
    off = value_off | row_off | target_off | bad
    tokens = len(reference.index)
    counts: Counted = {
        "tokens": tokens,
        "differing_tokens": int((value_off | target_off | bad).sum()),
        "differing_rows": int((row_off | bad).sum()),
    }
    faults = (*reference.faults, *candidate.faults)
    if faults and not bool(off.any()):
        return Comparison("differs", faults[0], **counts, details=InvarianceDetails(faults=faults))
    if not bool(off.any()):
        shown_nothing = idle(reference, candidate)
        if shown_nothing is not None:
            return Comparison("void", shown_nothing, **counts)
        equal: Measured = {"max_ulp": 0, **_between(reference, a, b, column)}
        return Comparison("holds", "every bit is equal", **counts, **equal)
    first = int(torch.nonzero(off)[0])
    reason = "bits differ"
    if bool(target_off.any()):
        first = int(torch.nonzero(target_off)[0])
        reason = "the two sides scored different token ids"
    elif bool(bad.any()):
        first = int(torch.nonzero(bad)[0])
        reason = UNFINITE
    finite_only = ~bad
    measures: Measured = {}
    if bool(finite_only.any()):
        spread = ulps(a[finite_only], b[finite_only])
        measures = {"max_ulp": int(spread.max())}
        measures |= _between(reference, a[finite_only], b[finite_only], column)
    place = _column(a[first], b[first], value_bits[first])
    sequence, position = reference.index[first]
    left, right = a[first, place], b[first, place]
    divergence = Divergence(
        sequence=reference.plan.members[sequence].id,
        position=position + 1 if column is not None else position,
        token=int(candidate.targets[first]) if column is not None else None,
        column=place if column is None else column,
        reference=number(left),
        candidate=number(right),
        reference_bits=pattern(left),
        candidate_bits=pattern(right),
        ulps=None if bool(bad[first]) else int(ulps(left[None], right[None])[0]),
        reference_digest=_hex(reference.digests[first]),
        candidate_digest=_hex(candidate.digests[first]),
        layer=None,
        part=None,
        name=None,
    )
    return Comparison("differs", reason, **counts, **measures, first_divergence=divergence)


def _column(a: Tensor, b: Tensor, unlike: Tensor) -> int:
    """The column of a row to show: where it is no finite number, else where bits differ.

    Column 0 where neither is seen: what differs or is NaN or Inf is no value, but in the row.
    """
    if bool((odd := ~(a.isfinite() & b.isfinite())).any()):
        unlike = odd
    where = torch.nonzero(unlike)
    return int(where[0]) if len(where) else 0


def rollout_side(reference: Plan) -> SideName:
    """Which of two paths is the rollout; the other one is the trainer, which scores again.

    The side that decodes or generates. Where both do, the reference; where neither does, the path
    that is compared with the reference, as a trainer's whole forward pass is what such a path is
    compared with.
    """
    return "reference" if _decodes(reference) else "candidate"


def _between(reference: Record, a: Tensor, b: Tensor, column: int | None) -> Measured:
    """Aggregates of two paths; ``a`` are the compared values of the reference, ``b`` the path's."""
    if column is None:
        return aggregates(a, b, column)
    side = rollout_side(reference.plan)
    rollout, trainer = (a, b) if side == "reference" else (b, a)
    return {**aggregates(rollout, trainer, column), "rollout": side}


def aggregates(rollout: Tensor, trainer: Tensor, column: int | None) -> Measured:
    """RL aggregates for logprobs, the largest distance otherwise."""
    if column is None:
        return {"max_abs": float((rollout.double() - trainer.double()).abs().max())}
    d = drift(rollout=rollout[:, 0], trainer=trainer[:, 0])
    return {
        "max_abs_dlogp": d.max_abs_dlogp,
        "approx_kl0": d.approx_kl0,
        "clipfrac0": d.clipfrac0,
    }
