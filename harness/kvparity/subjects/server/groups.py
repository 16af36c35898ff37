"""What a server is asked for a plan: which sequences run together, and how far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvparity.plan.schedule import Plan, Step


@dataclass(frozen=True)
class GroupRequest:
    """One request. ``stop``: positions from it on are not computed. ``rows``: those compared.
    ``scores``: whether its tokens are given, not drawn. ``donor``: the sequence whose first
    ``shared`` tokens it must find in the cache."""

    sequence: int
    stop: int
    rows: tuple[int, ...]
    scores: bool
    donor: int | None = None
    shared: int = 0


def requests(plan: Plan, steps: Sequence[Step]) -> list[list[GroupRequest]]:
    """Requests in groups that run together, in the order of their first steps."""
    groups: list[set[int]] = []
    for step in steps:
        joined = {span.sequence for span in step}
        apart = []
        for group in groups:
            if group & joined:
                joined |= group
            else:
                apart.append(group)
        groups = [*apart, joined]
    first = {
        span.sequence: number for number, step in reversed(list(enumerate(steps))) for span in step
    }
    groups.sort(key=lambda group: min(first[each] for each in group))
    return [[_request(plan, steps, each) for each in sorted(group)] for group in groups]


def _request(plan: Plan, steps: Sequence[Step], sequence: int) -> GroupRequest:
    spans = [span for step in steps for span in step if span.sequence == sequence]
    stop = max(span.stop for span in spans)
    adopts = [a for a in plan.actions if a.kind == "adopt" and a.sequence == sequence]
    return GroupRequest(
        sequence,
        stop,
        tuple(position for span in spans for position in span.rows),
        # A rollout ends one position earlier: its last token is not fed back.
        scores=stop == plan.members[sequence].length and not any(span.decode for span in spans),
        donor=adopts[0].donor if adopts else None,
        shared=adopts[0].tokens if adopts else 0,
    )
