"""Patterns of d along positions: at an end, from an edge on, growing, behind the first token."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kvparity.gaps.pattern import FEWEST, Pattern, line
from kvparity.rollouts.tokens import Tokens


def first_or_last(tokens: Tokens) -> Iterator[Pattern]:
    """Only the first token, or only the last (an end that is appended or cut)."""
    size = np.abs(tokens.d)
    for name, at in (("first", tokens.starts[:-1]), ("last", tokens.starts[1:] - 1)):
        edge = np.zeros(tokens.count, dtype=np.bool_)
        edge[at] = True
        inside, rest = float(np.median(size[edge])), float(np.percentile(size[~edge], 99))
        if edge.sum() >= 3 and (~edge).sum() >= FEWEST and inside > max(5 * rest, 1e-4):
            yield Pattern(
                f"{name}-token",
                "the end of a prompt is rendered otherwise"
                if name == "first"
                else "the end token is scored, added or cut otherwise",
                f"median |d| is {inside:.3g} at the {name} compared token of a sequence; 99 % of "
                f"the others are below {rest:.3g}",
                f"look at the ids around the {name} token of one sequence on both sides",
            )


def edge(tokens: Tokens) -> Iterator[Pattern]:
    """From a position on (window, page or chunk edge, RoPE scaling), or growing with it."""
    cut = _cut(tokens)
    if cut is None:
        return
    size, along = np.abs(tokens.d), tokens.positions
    before, after = size[along < cut], size[along >= cut]
    near = _near(tokens, cut)
    beside = (
        size[(along < cut) & (along >= cut - near)],
        size[(along >= cut) & (along < cut + near)],
    )
    middle = float(np.median(after))
    if float(np.median(beside[1])) > 4 * float(np.percentile(beside[0], 95)) and middle > 1e-5:
        yield Pattern(
            "edge",
            "a window, page, chunk or RoPE setting differs from a position on",
            f"median |d| is {float(np.median(before)):.3g} before position {cut} and {middle:.3g} "
            "from there on",
            f"look for {cut} (and its multiples) among window, page and chunk sizes",
        )
        return
    slope, share = line(along.astype(np.float64), size)
    low, high = np.percentile(along, (25, 75))
    early, late = float(size[along <= low].mean()), float(size[along >= high].mean())
    if share > 0.2 and slope > 0 and late > 4 * early and late > 1e-5:
        yield Pattern(
            "growth",
            "an error that accumulates: cache, position ids, RoPE scaling",
            f"mean |d| grows from {early:.3g} in the first quarter of positions to {late:.3g} in "
            "the last",
            "score one long sequence with and without a cache",
        )


def _cut(tokens: Tokens) -> int | None:
    """The position before and from which on logarithms of |d| are farthest apart."""
    logs = np.log(np.abs(tokens.d) + 1e-9)
    counts = np.bincount(tokens.positions)
    sums = np.bincount(tokens.positions, weights=logs)
    seen, total = np.cumsum(counts), np.cumsum(sums)
    usable = np.flatnonzero((seen >= FEWEST // 2) & (tokens.count - seen >= FEWEST // 2))
    if not usable.size:
        return None
    left = total[usable] / seen[usable]
    right = (total[-1] - total[usable]) / (tokens.count - seen[usable])
    return int(usable[np.argmax(right - left)]) + 1


def _near(tokens: Tokens, cut: int) -> int:
    """Positions to look at on each side of a cut, at least a dozen tokens of each."""
    counts = np.bincount(tokens.positions)
    for near in (16, 32, 64, 128):
        if (
            min(counts[max(0, cut - near) : cut].sum(), counts[cut : cut + near].sum())
            >= FEWEST // 2
        ):
            return near
    return int(counts.size)


def one_row(tokens: Tokens) -> Iterator[Pattern]:
    """Equal at the first token, which prefill computed, and not behind it: steps of one row."""
    equal = tokens.equal
    first = np.zeros(tokens.count, dtype=np.bool_)
    first[tokens.starts[:-1]] = True
    if first.sum() < 4 or (~first).sum() < FEWEST:
        return
    at_first, behind = float(equal[first].mean()), float(equal[~first].mean())
    if at_first == 1.0 and behind < 0.5 ** (4 / float(first.sum())) and behind < 0.75:
        yield Pattern(
            "one-row-steps",
            "the engine's decode steps of one row reduce otherwise than its prefill",
            f"the first drawn token of every sequence has equal bits, and {behind:.0%} of those "
            "behind it",
            "score the same tokens by the engine's own prefill; draw several sequences at once",
        )
