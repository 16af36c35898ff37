"""A pair of kernels: from how many keys on rows part, in which heads, and which side is wrong.

A kernel cannot be entered, so what is said is read off its rows and off float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.births.causes import Cause
from kvparity.births.pair_causes import (
    Wrong,
    distance,
    fault_cause,
    pair_of,
    wrong_cause,
    wrong_side,
)
from kvparity.births.signs import alike
from kvparity.core.bits import differing, ulps
from kvparity.core.words import digits, rounded, some
from kvparity.record.path_run import PathRun
from kvparity.subjects.base import column_name

NOW = "both sides gave the same bits now; nothing was located"
SUMS = "both sides are equally close to float64: another order of sums, or another rounding"


@dataclass(frozen=True)
class PairAccount:
    """What two kernels gave for the same rows.

    ``equal_up_to``: rows with so many keys and fewer are all equal (0: not even those with the
    fewest); ``from_keys``: the fewest keys of a row that differs, ``equal_above``: rows with more
    keys than that which are equal. ``columns``: of these rows how many columns differ, of all;
    ``first``: the sequence, position and column of the first, with both values. ``errors``: the
    largest distance from float64 where bits differ, of the reference and of the candidate.
    ``wrong``: the side that is off from float64 (0: reference, 1: candidate), or None: both are
    alike. ``fault``: what was wrong with rows that nobody compares. ``cause``: why.
    """

    rows: int
    differing: int
    equal_up_to: int
    from_keys: int
    equal_above: int
    columns: tuple[int, int]
    ulps: int
    first: tuple[str, int, str]
    values: tuple[float, float]
    errors: tuple[float, float]
    wrong: int | None
    fault: str
    cause: Cause

    @property
    def complete(self) -> bool:
        """Whether something differs: all that can be said of it from outside is."""
        return self.differing > 0 or bool(self.fault)

    def lines(self, reference: str, candidate: str) -> Iterator[str]:
        """For people, the numbers of rows first."""
        yield (
            f"{candidate} against {reference}: {self.differing} of {self.rows} compared rows differ"
        )
        why = f"cause: {self.cause.kind}: {self.cause.words}"
        if not self.differing:
            yield why
            return
        sequence, position, name = self.first
        yield (
            f"first in sequence {sequence}, position {position}, {name}: {reference} "
            f"{digits(self.values[0])}, {candidate} {digits(self.values[1])}"
        )
        (off, of), far = self.columns, some(self.ulps, "ulp")
        yield f"    {off} of {of} columns of the rows that differ, by up to {far}"
        yield self._edge()
        yield (
            f"from float64, where bits differ: {reference} is off by up to "
            f"{rounded(self.errors[0])}, {candidate} by up to {rounded(self.errors[1])}"
        )
        yield why

    def _edge(self) -> str:
        if not self.equal_up_to:
            words = f"rows differ from the fewest keys on: {self.from_keys}"
        else:
            words = (
                f"rows with up to {self.equal_up_to} keys are equal; the first that differs has "
                f"{self.from_keys}"
            )
        if self.equal_above:
            are = "is" if self.equal_above == 1 else "are"
            words += f"; {some(self.equal_above, 'row')} with more keys {are} equal"
        return words

    def json(self) -> dict[str, object]:
        """As JSON values."""
        sequence, position, name = self.first
        return {
            "rows": self.rows,
            "differing_rows": self.differing,
            "equal_up_to_keys": self.equal_up_to,
            "differs_from_keys": self.from_keys,
            "equal_rows_above": self.equal_above,
            "differing_columns": self.columns[0],
            "columns": self.columns[1],
            "ulps": self.ulps,
            "first": {"sequence": sequence, "position": position, "column": name},
            "values": [digits(each) for each in self.values],
            "errors": list(self.errors),
            "wrong_side": self.wrong,
            "fault": self.fault or None,
            "cause": {"kind": self.cause.kind, "part": self.cause.part, "words": self.cause.words},
        }


def pair_account(reference: PathRun, candidate: PathRun, exact: Tensor) -> PairAccount:
    """Run both sides and compare their rows, ``exact`` float64 ``[rows, width]`` beside them."""
    first, second = reference.run(), candidate.run()
    there = {place: row for row, place in enumerate(second.index)}
    a = first.values.cpu()
    true = exact.cpu()[:, : a.shape[1]]  # without the LSE, where the pair returns none
    b = second.values.cpu()[[there[place] for place in first.index]]
    off = differing(a, b)
    rows = off.any(-1)
    tokens = [(first.plan.members[s].id, position + 1) for s, position in first.index]
    keys = torch.tensor([pair_of(reference).keys(*each) for each in tokens])
    fault = next(iter((*second.faults, *first.faults)), "")
    if not bool(rows.any()):
        cause = fault_cause(candidate.subject, fault) if fault else Cause("no difference", NOW)
        return PairAccount(len(a), 0, int(keys.max()), 0, 0, (0, a.shape[1]), 0, ("", 0, ""),
                           (0.0, 0.0), (0.0, 0.0), None, fault, cause)  # fmt: skip
    fewest = int(keys[rows].min())
    equal = keys[~rows & (keys < fewest)]
    row = min(torch.nonzero(rows)[:, 0].tolist(), key=lambda r: (int(keys[r]), r))
    column = int(torch.nonzero(off[row])[0])
    sequence, position = first.index[row]
    distances = [(x.double() - true).abs().nan_to_num(torch.inf) for x in (a, b)]
    errors = float(distances[0][off].max()), float(distances[1][off].max())
    wrong = wrong_side(pair_of(candidate), a[rows], b[rows], true[rows])
    cause = Cause("reduction order", SUMS)
    if wrong is not None:
        side, values = ((reference, a), (candidate, b))[wrong]
        worst: int = max(
            torch.nonzero(rows)[:, 0].tolist(),
            key=lambda r: distance(pair_of(side), values[r].double(), true[r]),
        )
        cause = wrong_cause(
            Wrong(side, *first.index[worst], values[worst].double(), true[worst], str(side.path))
        )
    elif not (alike(first, reference.run()) and alike(second, candidate.run())):
        cause = Cause("not deterministic", "one side gave different bits when rerun")
    return PairAccount(
        rows=len(a),
        differing=int(rows.sum()),
        equal_up_to=int(equal.max()) if len(equal) else 0,
        from_keys=fewest,
        equal_above=int((~rows & (keys > fewest)).sum()),
        columns=(int(off[rows].sum()), int(rows.sum()) * a.shape[1]),
        ulps=int(ulps(a, b)[off].max()),
        first=(first.plan.members[sequence].id, position, column_name(reference.subject, column)),
        values=(float(a[row, column]), float(b[row, column])),
        errors=errors,
        wrong=wrong,
        fault=fault,
        cause=cause,
    )
