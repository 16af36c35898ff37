"""Schedules drawn by the seed, aimed at edges. Pure functions of what they are drawn for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from kvparity_contracts.parts import Parts
from kvparity_contracts.steps import SLACK, WrittenSpan, WrittenSteps
from kvparity_contracts.subjects import Attention, Decoder, Transformers, known, order_of

USUAL_TILE = 64
"""Keys per tile of common attention kernels, where a contract cannot say."""
USUAL_PAGE = 16
ROWS = 16
"""Rows of a batch from which on kernels take another tile, or another instruction."""
BESIDE = (-1, 0, 1)
WORDS = {-1: "one before", 0: "on", 1: "one behind"}


@dataclass(frozen=True)
class CutEdge:
    """Where a kernel cuts keys: at every multiple of ``keys``, or there once (a window)."""

    name: str
    keys: int
    once: bool = False

    def places(self, beside: int, stop: int) -> list[int]:
        """Positions between 0 and ``stop`` (both left out) that lie so beside it."""
        multiples = [self.keys] if self.once else range(self.keys, stop + 1, self.keys)
        return [each + beside for each in multiples if 0 < each + beside < stop]


@dataclass(frozen=True)
class DrawMeans:
    """What schedules of a subject are drawn of.

    ``pages``: slots of a page, beside a contiguous cache. ``together``: whether one step may hold
    several sequences. ``resets``: whether a session may be used before. ``block``: rows of queries
    that a program computes together.
    """

    edges: tuple[CutEdge, ...] = (CutEdge("tile", USUAL_TILE),)
    pages: tuple[int, ...] = ()
    together: bool = True
    resets: bool = False
    block: int = USUAL_TILE


ANYTHING = DrawMeans()
"""Where no contract says what its subject takes."""


def means(contract: Parts) -> DrawMeans:
    """What the contract's subject can be asked to run."""
    subject = contract.subject
    declared = not isinstance(subject, Attention) or subject.order is not None
    order = order_of(subject) if declared else None
    edges = [CutEdge("tile", order.tile if order else USUAL_TILE)]
    if order is not None and order.split != order.tile:
        edges.append(CutEdge("split", order.split))
    pages: tuple[int, ...] = ()
    if isinstance(subject, Decoder):
        pages = (USUAL_PAGE,)
    elif isinstance(subject, Attention) and subject.page:
        pages = (subject.page,)
    edges += [CutEdge("page", page) for page in pages]
    window = known(subject).sliding_window
    edges += [CutEdge("window", window, once=True)] if window else []
    model = isinstance(subject, Transformers)
    resets = not (isinstance(subject, Transformers) and subject.cache == "dynamic")
    block = order.block_m if order else USUAL_TILE
    return DrawMeans(tuple(edges), pages, not model, resets, block)


@dataclass
class _Dice:
    """Whole numbers by (seed, workload, number of the draw) and how many were taken before."""

    key: str
    taken: int = field(default=0)

    def below(self, stop: int) -> int:
        self.taken += 1
        digest = hashlib.sha256(f"{self.key}\0{self.taken}".encode()).digest()
        return int.from_bytes(digest[:8], "little") % stop

    def one_in(self, count: int) -> bool:
        return self.below(count) == 0

    def shuffled(self, count: int) -> list[int]:
        left = list(range(count))
        return [left.pop(self.below(len(left))) for _ in range(count)]


def draw(
    number: int, seed: int, workload: str, lengths: Sequence[int], generate: int, given: DrawMeans
) -> WrittenSteps:
    """Draw ``number`` (from 1) over prompts of these lengths.

    One sequence at least is decoded; others may be computed in chunks to their end, as a trainer
    does. Each draw cuts at an edge of its own, the next one beside the next.
    """
    dice = _Dice(f"{seed}\0schedule\0{workload}\0{number}")
    page = given.pages[dice.below(len(given.pages))] if given.pages and dice.below(2) else 0
    columns = _columns(number, dice, lengths, generate, given)
    if given.together and dice.one_in(4):
        columns += _strangers(dice, len(lengths))
    steps = list(_steps(dice, columns, given.together))
    if given.resets and dice.one_in(4):
        steps = [*steps[: 1 + dice.below(4)], (), *steps]
    return WrittenSteps(tuple(steps), page, (SLACK, 1, 5)[dice.below(3)])


def targets(longest: int, given: DrawMeans) -> list[tuple[CutEdge, int]]:
    """Edges, and sides of them, at which a prompt of so many tokens can be cut."""
    return [(e, side) for e in given.edges for side in BESIDE if e.places(side, longest)]


def _columns(
    number: int, dice: _Dice, lengths: Sequence[int], generate: int, given: DrawMeans
) -> list[list[WrittenSpan]]:
    """The pieces of each sequence, in order."""
    aims = targets(max(lengths), given)
    edge, side = aims[(number - 1) % len(aims)] if aims else (None, 0)
    aimed = None if edge is None else _any(dice, _long_enough(lengths, edge, side))
    decoded = dice.below(len(lengths))
    found = []
    for i, prompt in enumerate(lengths):
        total = prompt + generate
        whole = i != decoded and dice.one_in(4)
        stop = total if whole else prompt
        cuts = {_cut(dice, stop, given) for _ in range(dice.below(3))}
        if i == aimed and edge is not None:
            cuts.add(_any(dice, edge.places(side, prompt)))
        marks = [0, *sorted(cut for cut in cuts if 0 < cut < stop), stop]
        pieces = [WrittenSpan(i, a, b) for a, b in pairwise(marks)]
        if not whole:
            pieces += [WrittenSpan(i, p, p + 1, decode=True) for p in range(prompt, total - 1)]
        found.append(pieces)
    return found


def _long_enough(lengths: Sequence[int], edge: CutEdge, side: int) -> list[int]:
    return [i for i, prompt in enumerate(lengths) if edge.places(side, prompt)]


def _any(dice: _Dice, of: Sequence[int]) -> int:
    return of[dice.below(len(of))]


def _cut(dice: _Dice, stop: int, given: DrawMeans) -> int:
    """Mostly beside an edge, else anywhere."""
    places = [p for e in given.edges for side in BESIDE for p in e.places(side, stop)]
    return _any(dice, places) if places and not dice.one_in(4) else dice.below(stop + 1)


def _strangers(dice: _Dice, own: int) -> list[list[WrittenSpan]]:
    """A few neighbours, or so many that a step holds about ``ROWS`` rows; they have few tokens."""
    count = 2 if dice.one_in(2) else max(1, ROWS + _any(dice, BESIDE) - own)
    found = []
    for i in range(own, own + count):
        prompt = 1 + dice.below(3)
        decodes = [WrittenSpan(i, p, p + 1, decode=True) for p in range(prompt, prompt + 2)]
        found.append([WrittenSpan(i, 0, prompt), *decodes])
    return found


def _steps(
    dice: _Dice, columns: Sequence[list[WrittenSpan]], together: bool
) -> Iterator[tuple[WrittenSpan, ...]]:
    """All of them side by side, some at a time, or one after the other in any order."""
    left = [list(column) for column in columns]
    manner = dice.below(3) if together else 2
    if len(columns) > ROWS // 2:
        manner = 0  # or no step would hold so many rows
    while any(left):
        order = [i for i in dice.shuffled(len(left)) if left[i]]
        if manner == 2:
            order = order[:1]
        elif manner == 1:
            order = [i for i in order if dice.below(2)] or order[:1]
        yield tuple(left[i].pop(0) for i in order)


def reached(steps: WrittenSteps, own: int, given: DrawMeans) -> set[tuple[CutEdge, int]]:
    """Edges, and sides of them, at which a chunk of a sequence of the workload begins."""
    starts = {
        piece.start
        for step in steps.steps[steps.since_reset :]
        for piece in step
        if piece.sequence < own and not piece.decode
    }
    return {
        (edge, side)
        for edge in given.edges
        for side in BESIDE
        if starts & set(edge.places(side, max(starts) + 1))
    }
