"""The relations that look into a cache, as functions of what one or two sides compute."""

from __future__ import annotations

from kvparity.record.cache_snapshot import Held, Place
from kvparity.record.execute import Record
from kvparity.record.path_run import Side
from kvparity.relations import cache, liveness
from kvparity.relations.bits_and_limits import Comparison
from kvparity.relations.trace import relation as traces
from kvparity.relations.trace.tracing import trace_side
from kvparity_contracts.checks import LivenessCheck
from kvparity_contracts.contract import Contract
from kvparity_contracts.subjects import order_of

USUAL_EDGES = (64, 256)
"""Keys per tile and per split, where the contract cannot say."""


def compare_caches(
    reference: Side, candidate: Side, held: tuple[Held, Held] | None = None
) -> tuple[Comparison, Held, Held]:
    """What the caches of two sides hold at the end; ``held`` if it is known already."""
    left, right = held or (reference.hold(), candidate.hold())

    def again(side: str, place: Place) -> Held:
        return (reference if side == "reference" else candidate).hold(frozenset([place]))

    return cache.compare(left, right, again), left, right


def probe(side: Side, check: str) -> tuple[Comparison, Record]:
    """Which cached keys the last rows of one side depend on."""
    contract = side.setting.contract
    prober = liveness.Prober(side.plan, edges(contract), layers_of(contract, check))
    record = side.run(watch=prober)
    return liveness.judge(prober, record), record


def trace(side: Side) -> tuple[Comparison, Record]:
    """What the layers of one side look at, checked against the invariants of a trace."""
    found = trace_side(side)
    return traces.compare(found), found.record


def layers_of(contract: Contract, name: str) -> tuple[int, ...] | None:
    """The layers that a liveness check looks at; None: all."""
    check = next(each for each in contract.checks if each.name == name)
    return check.layers if isinstance(check, LivenessCheck) else None


def edges(contract: Contract) -> tuple[int, ...]:
    """Numbers of keys at whose multiples a kernel may do something else."""
    order = order_of(contract.subject)
    return USUAL_EDGES if order is None else (order.tile, order.split)
