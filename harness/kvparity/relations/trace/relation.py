"""How a trace is asked for, and told."""

from __future__ import annotations

from kvparity.relations.asked import Asked, RelationAnswer
from kvparity.relations.base import PathRelation
from kvparity.relations.trace.case_line import TraceCase
from kvparity.relations.trace.compare import compare
from kvparity.relations.trace.tracing import trace_side
from kvparity_contracts.checks import TraceCheck


class TraceRelation(PathRelation):
    """Every layer looks at what it should."""

    check = TraceCheck
    line = TraceCase
    holds = "positions, keys and weights are as expected"
    counted = "rows"
    probes = True

    def compare(self, asked: Asked) -> RelationAnswer:
        """Run the path with a listener, and check its trace against the invariants."""
        found = trace_side(asked.candidate.side)
        return RelationAnswer(compare(found), found.record)
