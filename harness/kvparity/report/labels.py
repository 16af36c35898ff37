"""Where a case of a report looked, in words."""

from __future__ import annotations

from kvparity.plan.results import CaseLine
from kvparity.relations.base import Document
from kvparity.relations.registry import RELATIONS


def place(case: CaseLine) -> str:
    """The path and workload of a case, or what its relation has in their place."""
    return place_in(case.document())


def place_in(case: Document) -> str:
    """The same of a case of a document."""
    return RELATIONS[case["relation"]].place(case)
