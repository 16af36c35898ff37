"""The account of a difference: its births, and what is equal once these are put right."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, replace

from torch import Tensor

from kvparity.births.digests import digest_pass
from kvparity.births.signs import Signs, alike, observed, without_program
from kvparity.births.transplant import (
    Birth,
    Born,
    KeptRows,
    Key,
    births,
    capture,
    replaced,
)
from kvparity.core.bits import differing
from kvparity.record.execute import Record
from kvparity.record.path_run import PathRun

ROOM = 1 << 28
"""Bytes of rows that are kept at once."""


@dataclass(frozen=True)
class Account:
    """What was found out about two paths.

    ``rows``: compared rows; ``differing``: of these, with other bits; ``still``: how many differ
    once the births alone are the reference's, ``still_logits`` in their logits, ``others`` that
    did not before.
    ``operations``: how many both sides reported.
    ``unlike``: operations and rows with other bits, in the order of computation; ``first`` of them.
    ``signs``: what was observed beside the births.
    ``left_out``: rows that did not fit into memory. ``gap`` and ``gap_left``: sums of absolute
    differences of the compared values. ``whole``: the time did not end before all births were
    looked for.
    """

    rows: int
    differing: int
    still: int
    still_logits: int
    operations: int
    first: Key | None
    unlike: tuple[Key, ...]
    signs: Signs
    births: tuple[Birth, ...]
    left_out: int
    gap: float
    gap_left: float
    others: int = 0
    whole: bool = True

    @property
    def complete(self) -> bool:
        """Whether putting the births right, and nothing else, made every compared row equal."""
        return bool(self.births and self.differing) and not self.still and not self.left_out

    @property
    def equal(self) -> int:
        """How many of the differing rows are equal with the births put right."""
        return self.differing - (self.still - self.others)

    @property
    def explained(self) -> float | None:
        """The share of the gap that is gone with the births; None of no gap, or an infinite one."""
        if not self.gap or math.isinf(self.gap):
            return None
        return max(0.0, 1.0 - self.gap_left / self.gap)

    @property
    def mended(self) -> float:
        """The share of the differing rows that are equal with the births put right."""
        return self.equal / self.differing if self.differing else 1.0

    def by_operation(self) -> Counter[str]:
        """How many rows were born in each operation, in the order of computation."""
        return Counter(each.operation for each in self.births)


def account(
    reference: PathRun, candidate: PathRun, *, room: int = ROOM, until: float = math.inf
) -> Account:
    """Locate where a path parts from its reference.

    Four more runs: digests of both, the reference's rows where something differs, the candidate
    with these put in, and the candidate with its births alone put right. Where that leaves most of
    the difference, one more, of the candidate as it is; where nothing was reported of a traced
    program, one of the same steps without it.

    ``until``: by the monotonic clock; where births are still looked for then, those that were found
    are put right, and what they explain is told.
    """
    a, a_digests = digest_pass(reference)
    began = time.monotonic()
    b, b_digests = digest_pass(candidate)
    again = time.monotonic() - began
    # Births may be looked for as long as their pass can end, and one more with these put right.
    until -= 2 * again
    unlike = list(a_digests.unlike(b_digests))
    off, off_logits, gap = _apart(a, b)
    operations = len(a_digests.by_operation.keys() & b_digests.by_operation.keys())
    signs = observed(a, a_digests, b, b_digests)
    if not unlike:
        eager = without_program(candidate) if signs.logits_differ else None
        signs = replace(signs, traced=eager is not None and not _apart(a, eager)[0].any())
        count = int(off.sum())
        return Account(
            len(a.index), count, count, off_logits, operations, None, (), signs, (), 0, gap, gap
        )
    order = {name: number for number, name in enumerate(a_digests.by_operation)}
    found, kept = Born((), (), False), KeptRows((), 0)
    if time.monotonic() < until:
        kept = capture(reference, {place for _, place in unlike}, room)
        found = births(candidate, kept, a_digests.by_operation, until)
    born = found.births
    still, still_logits, left = off, off_logits, gap
    if born or found.whole:
        keys = {(each.operation, (each.sequence, each.position)) for each in born}
        mended = replaced(candidate, {key: row for key, row in kept.rows.items() if key in keys})
        still, still_logits, left = _apart(a, mended)
    unsteady = bool(born and still.any() and found.whole) and not alike(b, candidate.run())
    return Account(
        rows=len(a.index),
        differing=int(off.sum()),
        still=int(still.sum()),
        still_logits=still_logits,
        operations=operations,
        first=min(unlike, key=lambda each: each[1]),
        unlike=tuple(unlike),
        signs=replace(signs, walked=found.walked, unsteady=unsteady),
        births=tuple(sorted(born, key=lambda each: order[each.operation])),
        left_out=kept.left_out,
        gap=gap,
        gap_left=left,
        others=int((still & ~off).sum()),
        whole=found.whole,
    )


def _apart(a: Record, b: Record) -> tuple[Tensor, int, float]:
    """Which rows differ in value or digest, how many in their digest, and how far values are.

    That is the sum of absolute differences.
    """
    there = {place: row for row, place in enumerate(b.index)}
    rows = [there[place] for place in a.index]
    values = b.values.to(a.values.device)[rows]
    logits = a.digests != b.digests.to(a.digests.device)[rows]
    off = logits | differing(a.values, values).any(-1)
    gap = float((a.values.double() - values.double()).abs().nansum())
    return off, int(logits.sum()), gap
