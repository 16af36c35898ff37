"""The control flow of a kernel: basic blocks, natural loops, and the parts between them.

Compilers lay blocks out as they like (on newer GPUs a loop may stand behind the code that follows
it), so loops are found from branches, not from the order of lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from kvparity.relations.audit.ptx import Instruction, Program

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
class Parts:
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


def control_flow(program: Program) -> Flow:
    """Blocks, order and loops of a program.

    Raises ``ValueError`` for a branch to a label that is not there.
    """
    blocks, successors = _blocks(program)
    order = _order(successors)
    return Flow(blocks, successors, order, _loops(successors, order))


def cut(flow: Flow) -> Parts:
    """Cut at the innermost loop that multiplies matrices, else at the only loop there is.

    Without either all is ``before``.
    """
    inner = matrix_loop(flow)
    if inner is None:
        if len(flow.loops) != 1:
            return Parts(before=flow.part(frozenset(flow.order)))
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
    return Parts(
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
    found: set[int] = set()
    todo = list(start)
    while todo:
        new = (allowed & set(flow.successors[todo.pop()])) - found
        found |= new
        todo += new
    return frozenset(found)


def _blocks(
    program: Program,
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
                raise ValueError(f"this PTX branches to {last.operands[0]}, which is nowhere in it")
            targets.append(program.labels[last.operands[0]])
        if not _jumps(last) or last.guard:
            targets.append(stop)
        successors[start] = tuple(each for each in targets if each < len(code))
    return blocks, successors


def _jumps(each: Instruction) -> bool:
    return each.op.split(".")[0] in (*_BRANCHES, *_LEAVES)


def _order(successors: dict[int, tuple[int, ...]]) -> tuple[int, ...]:
    seen, done = {0}, []
    stack = [(0, iter(successors[0]))]
    while stack:
        number, rest = stack[-1]
        following = next((each for each in rest if each not in seen), None)
        if following is None:
            done.append(number)
            stack.pop()
        else:
            seen.add(following)
            stack.append((following, iter(successors[following])))
    return tuple(reversed(done))


def _loops(successors: dict[int, tuple[int, ...]], order: tuple[int, ...]) -> tuple[Loop, ...]:
    before: dict[int, list[int]] = {number: [] for number in order}
    for number in order:
        for each in successors[number]:
            before[each].append(number)
    dominators = _dominators(before, order)
    bodies: dict[int, set[int]] = {}
    for number in order:
        for header in successors[number]:
            if header in dominators[number]:
                body = bodies.setdefault(header, {header})
                todo = [number]
                while todo:
                    each = todo.pop()
                    if each not in body:
                        body.add(each)
                        todo += before[each]
    return tuple(Loop(header, frozenset(body)) for header, body in bodies.items())


def _dominators(before: dict[int, list[int]], order: tuple[int, ...]) -> dict[int, set[int]]:
    found = {number: set(order) for number in order}
    found[order[0]] = {order[0]}
    changed = True
    while changed:
        changed = False
        for number in order[1:]:
            new = {number} | set.intersection(*(found[each] for each in before[number]))
            if new != found[number]:
                found[number], changed = new, True
    return found
