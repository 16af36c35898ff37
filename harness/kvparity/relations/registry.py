"""All relations, by the name that contracts write. :func:`register` adds one."""

from __future__ import annotations

from kvparity.relations.accuracy.relation import AccuracyRelation
from kvparity.relations.audit.relation import AuditRelation
from kvparity.relations.base import KernelRelation, PathRelation, Relation
from kvparity.relations.cache.relation import CacheRelation
from kvparity.relations.invariance import InvarianceRelation
from kvparity.relations.liveness.relation import LivenessRelation
from kvparity.relations.order.relation import OrderRelation
from kvparity.relations.parity.relation import ParityRelation
from kvparity.relations.reproduction import ReproductionRelation
from kvparity.relations.tp.relation import TpRelation
from kvparity.relations.trace.relation import TraceRelation
from kvparity_contracts import checks

RELATIONS: dict[str, Relation] = {
    each.name: each
    for each in (
        InvarianceRelation(),
        AccuracyRelation(),
        CacheRelation(),
        LivenessRelation(),
        TraceRelation(),
        OrderRelation(),
        AuditRelation(),
        ParityRelation(),
        TpRelation(),
        ReproductionRelation(),
    )
}
"""In the order in which they are listed."""


def register(relation: Relation) -> None:
    """Let contracts ask for a relation, in this process.

    Raises:
        ValueError: its name is taken.
    """
    checks.register(relation.check)
    RELATIONS[relation.name] = relation


def withdraw(name: str) -> None:
    """Undo :func:`register`."""
    del RELATIONS[name]
    checks.withdraw(name)


def path_relation(name: str) -> PathRelation:
    """The relation of a case of paths."""
    found = RELATIONS[name]
    if not isinstance(found, PathRelation):
        raise TypeError(f"{name} is no relation of paths")
    return found


def kernel_relation(name: str) -> KernelRelation:
    """The relation of a case of kernels."""
    found = RELATIONS[name]
    if not isinstance(found, KernelRelation):
        raise TypeError(f"{name} is no relation of kernels")
    return found
