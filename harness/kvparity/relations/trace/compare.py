"""Relation *trace*: one case of a contract, from the judgement of its trace."""

from __future__ import annotations

from kvparity.relations.bits_and_limits import Comparison, Counted, other_work
from kvparity.relations.trace.case_line import TraceDetails
from kvparity.relations.trace.tracing import Trace

SHOWN = 8
"""Broken invariants that a report lists."""


def compare(trace: Trace) -> Comparison:
    """What a trace means for its case; ``tokens`` counts rows, ``differing_tokens`` broken ones."""
    found = trace.judgement
    known = [seen.weights for line in trace.lines for seen in line.layers if seen.weights]
    sums = [w for w in known if not w.recomputed]
    worst = max(sums, key=lambda w: w.deviation / w.bound, default=None)
    details = TraceDetails(
        layers=max((len(line.layers) for line in trace.lines), default=0),
        judged=dict(found.said),
        broken=tuple(found.broken[:SHOWN]),
        weight_sum_ulps=None if worst is None else worst.deviation,
        weight_sum_bound_ulps=None if worst is None else worst.bound,
        largest_out_ratio=max((w.out_ratio for w in known), default=None),
    )
    counts: Counted = {
        "tokens": len(trace.lines),
        "differing_tokens": len({(b.sequence, b.step, b.place) for b in found.broken}),
    }
    idle = other_work("path", trace.record) if found.outcome == "holds" else None
    if idle is not None:
        return Comparison("void", idle, **counts, details=details)
    return Comparison(found.outcome, found.reason, **counts, details=details)
