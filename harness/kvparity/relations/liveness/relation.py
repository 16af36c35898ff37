"""How liveness is asked for, and told."""

from __future__ import annotations

from kvparity.record.run_events import watching
from kvparity.relations.asked import Asked, RelationAnswer
from kvparity.relations.base import PathRelation
from kvparity.relations.liveness.line import LivenessCase
from kvparity.relations.liveness.probing import Prober, judge
from kvparity_contracts.checks import LivenessCheck
from kvparity_contracts.contract import Contract
from kvparity_contracts.subjects import order_of

USUAL_EDGES = (64, 256)
"""Keys per tile and per split, where the contract cannot say."""


class LivenessRelation(PathRelation):
    """The last rows of a path depend on what they see, and on nothing else."""

    check = LivenessCheck
    line = LivenessCase
    holds = "rows depend on what they see, and on nothing else"
    counted = "changed keys"
    probes = True

    def compare(self, asked: Asked) -> RelationAnswer:
        """Run the path with a probe."""
        side = asked.candidate.side
        layers = asked.check.layers if isinstance(asked.check, LivenessCheck) else None
        prober = Prober(side.plan, edges(side.setting.contract), layers)
        with watching(prober):
            record = side.run()
        return RelationAnswer(judge(prober, record), record)


def edges(contract: Contract) -> tuple[int, ...]:
    """Numbers of keys at whose multiples a kernel may do something else."""
    order = order_of(contract.subject)
    return USUAL_EDGES if order is None else (order.tile, order.split)
