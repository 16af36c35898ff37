"""The control flow of a kernel: basic blocks, natural loops, and the parts between them.

Compilers lay blocks out as they like (on newer GPUs a loop may stand behind the code that follows
it), so loops are found from branches, not from the order of lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from kvparity.relations.audit.ptx import Instruction, PtxProgram

if TYPE_CHECKING:
    import networkx as nx

_BRANCHES = ("bra", "brx")  # brx takes its label from a table, which nothing here reads
_LEAVES = ("ret", "exit", "trap")
_MANY = 64  # fma in a loop that multiplies matrices without matrix instructions


@dataclass(frozen=True)
class Loop:
    """A natural loop: its header and all its blocks, by number."""

    header: int
    blocks: frozenset[int]


@dataclass(frozen=True)
class Flow:
    """Blocks in the order in which they can run, with their successors and loops."""

    blocks: dict[int, tuple[Instruction, ...]]
    successors: dict[int, tuple[int, ...]]
    order: tuple[int, ...]  # reverse postorder from the entry
    loops: tuple[Loop, ...]

    def part(self, chosen: frozenset[int]) -> tuple[Instruction, ...]:
        """The instructions of some blocks, in running order."""
        return tuple(each for number in self.order if number in chosen for each in self[number])

    def __getitem__(self, number: int) -> tuple[Instruction, ...]:
        return self.blocks[number]


@dataclass(frozen=True)
class LoopParts:
    """A kernel cut at the loop over tiles; what is not there is empty.

    ``before``: from the start (or the head of the loop around) to the loop. ``loop``: the loop
    over tiles. ``after``: from it to the end of the loop around, or of the kernel. ``finish``:
    behind the loop around. ``around``: whether there is a loop around.
    """

    before: tuple[Instruction, ...] = ()
    loop: tuple[Instruction, ...] = ()
    after: tuple[Instruction, ...] = ()
    finish: tuple[Instruction, ...] = ()
    around: bool = False


def control_flow(program: PtxProgram) -> Flow:
    """Blocks, order and loops of a program.

    Raises ``ValueError`` for a branch to a label that is not there.
    """
    blocks, successors = _blocks(program)
    import networkx as nx  # not with this module, which every run imports

    graph = nx.DiGraph(successors)
    order = tuple(reversed([*nx.dfs_postorder_nodes(graph, 0)]))
    return Flow(blocks, successors, order, _loops(graph.subgraph(order), order))


def cut(flow: Flow) -> LoopParts:
    """Cut at the innermost loop that multiplies matrices, else at the only loop there is.

    Without either all is ``before``.
    """
    inner = matrix_loop(flow)
    if inner is None:
        if len(flow.loops) != 1:
            return LoopParts(before=flow.part(frozenset(flow.order)))
        inner = flow.loops[0]
    outer = min(
        (each for each in flow.loops if inner.blocks < each.blocks),
        key=lambda each: len(each.blocks),
        default=None,
    )
    every = frozenset(flow.order)
    scope = every if outer is None else outer.blocks
    head = frozenset[int]() if outer is None else frozenset({outer.header})
    after = _reach(flow, inner.blocks, scope - inner.blocks - head)
    finish = _reach(flow, scope, every - scope)
    return LoopParts(
        before=flow.part(scope - inner.blocks - after),
        loop=flow.part(inner.blocks),
        after=flow.part(after),
        finish=flow.part(finish),
        around=outer is not None,
    )


def matrix_loop(flow: Flow) -> Loop | None:
    """The innermost loop that multiplies matrices, by instruction or by many fma; or None."""
    ordered = sorted(flow.loops, key=lambda each: len(each.blocks))
    with_matrix = [x for x in ordered if any(each.matrix for each in flow.part(x.blocks))]
    if with_matrix:
        return with_matrix[0]
    if any(each.matrix for number in flow.order for each in flow[number]):
        return None  # straight-line: a loop that there is is another one
    for loop in ordered:
        if sum(each.op.startswith("fma.rn.f32") for each in flow.part(loop.blocks)) >= _MANY:
            return loop
    return None


def _reach(flow: Flow, start: frozenset[int], allowed: frozenset[int]) -> frozenset[int]:
    """The blocks of ``allowed`` to which a way leads from ``start`` that stays in them."""
    import networkx as nx

    graph = nx.DiGraph(flow.successors).subgraph(start | allowed)
    found = set[int]().union(*(nx.descendants(graph, each) for each in start))
    return frozenset(found & allowed)


def _blocks(
    program: PtxProgram,
) -> tuple[dict[int, tuple[Instruction, ...]], dict[int, tuple[int, ...]]]:
    code = program.instructions
    starts = {0} | set(program.labels.values())
    starts |= {i + 1 for i, each in enumerate(code) if _jumps(each)}
    bounds = sorted(start for start in starts if start < len(code))
    blocks, successors = {}, {}
    for start, stop in pairwise([*bounds, len(code)]):
        blocks[start] = code[start:stop]
        last = code[stop - 1]
        targets = []
        if last.op.split(".")[0] in _BRANCHES:
            if last.operands[0] not in program.labels:
                raise ValueError(f"this PTX branches to {last.operands[0]}, which is missing")
            targets.append(program.labels[last.operands[0]])
        if not _jumps(last) or last.guard:
            targets.append(stop)
        successors[start] = tuple(each for each in targets if each < len(code))
    return blocks, successors


def _jumps(each: Instruction) -> bool:
    return each.op.split(".")[0] in (*_BRANCHES, *_LEAVES)


def _loops(graph: nx.DiGraph, order: tuple[int, ...]) -> tuple[Loop, ...]:
    """Natural loops: a way back to a header, and all that reaches it without passing the header.

    If the start does, the header does not dominate, and there is no natural loop.
    """
    import networkx as nx

    bodies: dict[int, set[int]] = {}
    for at, number in enumerate(order):
        for header in (each for each in graph[number] if each in order[: at + 1]):
            body = {header}
            if header != number:
                body = {number, *nx.ancestors(nx.restricted_view(graph, [header], []), number)}
            if header in (0, number) or 0 not in body:
                bodies.setdefault(header, {header}).update(body)
    return tuple(Loop(header, frozenset(body)) for header, body in bodies.items())
