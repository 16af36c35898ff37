"""Which rows of a long prompt are compared: beside edges of tiles and the like, and by the seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from kvparity_contracts.base import Fault, KeyPath
from kvparity_contracts.checks import Accuracy, PathCheck
from kvparity_contracts.draws import CutEdge, DrawMeans, means
from kvparity_contracts.parts import Parts
from kvparity_contracts.paths import PathKind
from kvparity_contracts.subjects import Attention, Transformers
from kvparity_contracts.workloads import Workload

Rows = tuple[int, ...]
"""Positions of one prompt, ascending."""
PATHS: tuple[PathKind, ...] = (
    "prefill",
    "decode",
    "chunked",
    "streamed",
    "batched",
    "uniform",
    "mixed",
    "paged",
)
"""Paths of which chosen rows of the prompt can be computed alone."""
BY_PREFILL: tuple[PathKind, ...] = ("prefill", "chunked", "streamed")
"""Of these, paths whose prompts go through the prefill path; the others decode chosen rows."""
INSIDE = ("liveness", "trace")
"""Relations that look at more than the compared rows."""
KINDS = ("attention", "decoder", "transformers")
SIDES = (-1, 0)
"""The last row that sees whole tiles only, and the first one that sees a key of the next."""


def places(edge: CutEdge, stop: int) -> list[int]:
    """Where an edge is looked at: the first one, each twice as far out, and the last one."""
    if edge.once or edge.keys >= stop:
        return [edge.keys] if edge.keys < stop else []
    found = [edge.keys]
    while 2 * found[-1] < stop:
        found.append(2 * found[-1])
    return sorted({*found, (stop - 1) // edge.keys * edge.keys})


def choose(workload: Workload, length: int, name: str, seed: int, given: DrawMeans) -> Rows:
    """The rows of a prompt of ``length`` tokens that are compared beside those that generate."""
    if workload.rows is None:
        return ()
    stop = length - 1  # the last row of a prompt generates
    picked: set[int] = set()
    if workload.rows.edges:
        edges = [*given.edges, CutEdge("block", given.block)]
        picked = {at + side for edge in edges for at in places(edge, stop) for side in SIDES}
    drawn: set[int] = set()
    for position in _drawn(f"{seed}/{name}/rows", stop):
        if len(drawn) >= min(workload.rows.random, stop):
            break
        drawn.add(position)
    return tuple(sorted(picked | drawn))


def every(workload: Workload, contract: Parts) -> list[Rows]:
    """The same of each prompt of a contract's workload."""
    given = means(contract)
    return [
        choose(workload, length, f"{workload.name}/{number}", contract.seed, given)
        for number, length in enumerate(workload.lengths())
    ]


def _drawn(key: str, stop: int) -> Iterator[int]:
    number = 0
    while stop:
        digest = hashlib.sha256(f"{key}/{number}".encode()).digest()
        yield int.from_bytes(digest[:8], "big") % stop
        number += 1


def faults(contract: Parts) -> Iterator[Fault]:
    """Where rows cannot be chosen: other subjects, paths and relations."""
    for i, workload in enumerate(contract.workloads):
        if workload.rows is not None and contract.subject.kind not in KINDS:
            found = f"found rows beside a subject of kind {contract.subject.kind}"
            yield Fault(("workloads", i, "rows"), found, f"a subject of kind {', '.join(KINDS)}")
        pair = contract.subject if isinstance(contract.subject, Attention) else None
        if workload.rows is not None and pair and not pair.causal:
            found = "found rows, but rows of this pair see keys that are not before them"
            yield Fault(("workloads", i, "rows"), found, "no rows")
    for i, check in enumerate(contract.checks):
        if isinstance(check, PathCheck):
            yield from _of_check(contract, ("checks", i), check)


def _of_check(contract: Parts, at: KeyPath, check: PathCheck) -> Iterator[Fault]:
    names = [each.name for each in contract.workloads_of(check) if each.rows is not None]
    if not names:
        return
    whose = f"the workload {names[0]} compares chosen rows"
    for j, path in enumerate(check.paths):
        if path.kind not in PATHS:
            found = f"found '{path}', but {whose}"
            yield Fault((*at, "paths", j), found, f"one of {', '.join(PATHS)}")
    if check.against is not None and check.against.kind not in PATHS:
        found = f"found '{check.against}', but {whose}"
        yield Fault((*at, "against"), found, f"one of {', '.join(PATHS)}")
    if check.relation in INSIDE:
        found = f"found {check.relation!r}, which looks at all rows, but {whose}"
        yield Fault((*at, "relation"), found, "another workload for this check")
    if isinstance(check, Accuracy) and isinstance(contract.subject, Transformers):
        found = f"found 'accuracy', but {whose}, and float64 of a transformers model holds all rows"
        yield Fault((*at, "relation"), found, "another workload for this check")


def told(contract: Parts) -> Iterator[tuple[KeyPath, str]]:
    """How many rows of each prompt are compared, and at which edges."""
    given = means(contract)
    for i, workload in enumerate(contract.workloads):
        if workload.rows is None:
            continue
        each = enumerate(zip(workload.lengths(), every(workload, contract), strict=True))
        for number, (length, rows) in each:
            parts = list(_edges(given, length - 1)) if workload.rows.edges else []
            parts.append(f"{min(workload.rows.random, length - 1)} by the seed")
            parts.append(f"the last {workload.generate}")
            compared, whole = len(rows) + workload.generate, length + workload.generate - 1
            yield (
                ("workloads", i, "rows"),
                f"{workload.name}/{number}: {compared:,} of {whole:,} rows are compared: "
                f"{'; '.join(parts)}",
            )


def _edges(given: DrawMeans, stop: int) -> Iterator[str]:
    for edge in (*given.edges, CutEdge("block", given.block)):
        found, every = places(edge, stop), 1 if edge.once else (stop - 1) // edge.keys
        name = "block of queries" if edge.name == "block" else edge.name
        if found:
            where = f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"
            yield f"{len(found)} of {every:,} edges of a {name} of {edge.keys}, at {where}"
        else:
            yield f"no edge of a {name} of {edge.keys}"
