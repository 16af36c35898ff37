"""A pair of kernels: from how many keys on rows part, in which heads, and which side is wrong.

A kernel cannot be entered, so what is said is read off its rows and off float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.core.bits import differing, ulps
from kvparity.core.words import digits, rounded
from kvparity.record.execute import Record

FAR = 16.0
"""A side whose error is so many times the other's is called the wrong one."""


@dataclass(frozen=True)
class PairAccount:
    """What two kernels gave for the same rows.

    ``equal_up_to``: rows with so many keys and fewer are all equal (0: not even those with the
    fewest); ``from_keys``: the fewest keys of a row that differs, ``equal_above``: rows with more
    keys than that which are equal. ``columns``: of these rows how many columns differ, of all;
    ``first``: the sequence, position and column of the first, with both values. ``errors``: the
    largest distance from float64 where bits differ, of the reference and of the candidate.
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

    @property
    def complete(self) -> bool:
        """Whether something differs: all that can be said of it from outside is."""
        return self.differing > 0

    @property
    def wrong(self) -> int | None:
        """The side that is off from float64 (0: reference, 1: candidate), or None: both alike."""
        low, high = min(self.errors), max(self.errors)
        return None if high <= FAR * low else self.errors.index(high)

    def lines(self, reference: str, candidate: str) -> Iterator[str]:
        """For people, the numbers of rows first."""
        yield (
            f"{candidate} against {reference}: {self.differing} of {self.rows} compared rows differ"
        )
        if not self.differing:
            yield "cause: no difference: both sides gave the same bits now; nothing was located"
            return
        sequence, position, name = self.first
        yield (
            f"first in sequence {sequence}, position {position}, {name}: {reference} "
            f"{digits(self.values[0])}, {candidate} {digits(self.values[1])}"
        )
        off, of = self.columns
        yield f"    {off} of {of} columns of the rows that differ, by up to {self._far()}"
        yield self._edge()
        yield (
            f"from float64, where bits differ: {reference} is off by up to "
            f"{rounded(self.errors[0])}, {candidate} by up to {rounded(self.errors[1])}"
        )
        yield f"cause: {self.cause(reference, candidate)}"

    def _far(self) -> str:
        return f"{self.ulps} ulp{'' if self.ulps == 1 else 's'}"

    def _edge(self) -> str:
        if not self.equal_up_to:
            words = f"rows differ from the fewest keys on: {self.from_keys}"
        else:
            words = (
                f"rows with up to {self.equal_up_to} keys are equal; the first that differs has "
                f"{self.from_keys}"
            )
        if self.equal_above:
            words += f"; {self.equal_above} rows with more keys are equal"
        return words

    def cause(self, reference: str, candidate: str) -> str:
        """The kind of cause, and what it rests on."""
        if self.wrong is None:
            return (
                "reduction order: both sides are as near to float64: another order of sums, or "
                "another rounding"
            )
        side = (reference, candidate)[self.wrong]
        return (
            f"values: {side} is wrong, not only otherwise rounded: another key, mask, window, "
            "scale or cell"
        )

    def json(self) -> dict[str, object]:
        """As JSON values."""
        sequence, position, name = self.first
        kind = "no difference"
        if self.differing:
            kind = "reduction order" if self.wrong is None else "values"
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
            "cause": {"kind": kind},
        }


def pair_account(
    reference: Record, candidate: Record, exact: Tensor, named: Callable[[int], str]
) -> PairAccount:
    """Compare the rows of two records, ``exact`` float64 ``[rows, width]`` beside them.

    ``named``: what a column is called.
    """
    there = {place: row for row, place in enumerate(candidate.index)}
    order = [there[place] for place in reference.index]
    a = reference.values.cpu()
    b = candidate.values.cpu()[order]
    off = differing(a, b)
    rows = off.any(-1)
    names = [member.id for member in reference.plan.members]
    keys = torch.tensor([position + 1 for _, position in reference.index])
    if not bool(rows.any()):
        return PairAccount(len(a), 0, int(keys.max()), 0, 0, (0, a.shape[1]), 0, ("", 0, ""),
                           (0.0, 0.0), (0.0, 0.0))  # fmt: skip
    fewest = int(keys[rows].min())
    equal = keys[~rows & (keys < fewest)]
    row = min(torch.nonzero(rows)[:, 0].tolist(), key=lambda r: (int(keys[r]), r))
    column = int(torch.nonzero(off[row])[0])
    sequence, position = reference.index[row]
    true = exact.cpu()
    errors = [float((x.double() - true)[off].abs().nan_to_num(torch.inf).max()) for x in (a, b)]
    return PairAccount(
        rows=len(a),
        differing=int(rows.sum()),
        equal_up_to=int(equal.max()) if len(equal) else 0,
        from_keys=fewest,
        equal_above=int((~rows & (keys > fewest)).sum()),
        columns=(int(off[rows].sum()), int(rows.sum()) * a.shape[1]),
        ulps=int(ulps(a, b)[off].max()),
        first=(names[sequence], position, named(column)),
        values=(float(a[row, column]), float(b[row, column])),
        errors=(errors[0], errors[1]),
    )
