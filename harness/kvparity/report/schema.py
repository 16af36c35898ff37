"""The version of the documents that carry measures of a case: reports, replays, codec reports.

It is counted up when a field changes its meaning or goes. What changed:

- 1: ``d`` was rollout - rescore, so ``approx_kl0`` and ``clipfrac0`` had the other sign.
- 2: ``d`` is trainer - rollout, as :mod:`kvparity.core.drift` says.
"""

from __future__ import annotations

from collections.abc import Mapping

SCHEMA_VERSION = 2
RESIGNED = ("approx_kl0", "clipfrac0")
"""What schema 1 measured with the other sign of d: no number of one is compared with the other."""


def schema_of(document: Mapping[str, object]) -> int:
    """The schema of a report or of an ``identity.json``, which first named it under schema 2."""
    found = document.get("schema_version", 1)
    return found if type(found) is int else 0  # of nothing that this project wrote
