"""Edges of blocks: every question against a count of roundings, every set of edges by brute force.

``trail`` says how often a weight was rounded by walking the blocks as an online softmax does; the
probes know no tile and no split. ``Blocks`` answers questions from blocks that are known.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from order_pairs import How, decode, pair, subject

from kvparity.relations.order import NotATree, NotMeasured, ProbeLied
from kvparity.relations.order.rescale import (
    Edges,
    RescaleEdges,
    certify_edges,
    recover_edges,
)
from kvparity.relations.order.sides import Side
from kvparity.subjects.attention_calls import by_keywords
from kvparity.subjects.pair.model import Pair

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16


def side(which: Pair, dtype=F32, keys=7, heads=(4, 2, 4), batch=2, **more) -> Side:
    return Side(subject(which, dtype, heads, **more), "decode", keys=keys, batch=batch, rows=1)


def pair_of(dtype=F32, **how) -> Pair:
    return pair(How(**{"weights": dtype} | how))


# which questions are answered, and how


def trail(a: int, b: int, c: int, n: int, tile: int, split: int) -> list[bool]:
    """Each rounding of a's weight: whether it is that of the weight itself (else of a scaling)."""
    score, found = {a: 0, b: 1, c: 2}, []
    merged = None
    for start in range(0, n, split):
        stop, top, mine = min(start + split, n), None, start <= a < start + split
        for first in range(start, stop, tile):
            last = min(first + tile, stop)
            here = [score[x] for x in (a, b, c) if first <= x < last]
            new = max([*here, *([] if top is None else [top])], default=None)
            if first <= a < last:
                found += [True] * (new != score[a])
            elif mine and a < first and new != top:
                found.append(False)
            top = new
        new = max((x for x in (merged, top) if x is not None), default=None)
        if mine:
            found += [False] * (new != top)
        elif a < start and new != merged:
            found.append(False)
        merged = new
    return found


def closed(b: int, c: int, n: int, how: How, dtype) -> bool:
    near = [a for a in (b - 1, b + 1) if a != c and 0 <= a < n]
    trails = [trail(a, b, c, n, how.tile, how.split) for a in near]
    if dtype == F32:
        return any(len(each) > 1 for each in trails)
    # Only weights are rounded to 16 bits, so a second rounding shows behind that of a weight.
    return any(each[:1] == [True] and len(each) > 1 for each in trails)


@pytest.mark.parametrize(
    ("dtype", "tile", "split"),
    [(F32, 2, 4), (F32, 3, 3), (F32, 1, 5), (BF16, 2, 4), (BF16, 4, 16), (F16, 3, 3), (F16, 2, 5)],
    ids=str,
)
def test_every_pair_of_keys_is_answered_as_roundings_are_counted(dtype, tile, split):
    """In a shuffled order, so that questions that lie beside each other have other answers."""
    how = How(tile=tile, split=split, weights=dtype)
    ask = RescaleEdges(side(pair(how), dtype))
    asked = list(itertools.permutations(range(7), 2))
    asked = [asked[x] for x in np.random.default_rng(0).permutation(len(asked))]
    assert ask(asked).tolist() == [closed(b, c, 7, how, dtype) for b, c in asked]
    assert ask.probes == len(asked) == 42
    assert ask(asked[:1]).tolist() == [closed(*asked[0], 7, how, dtype)]


@pytest.mark.parametrize("off", [2.0**-14, -(2.0**-14)])
@pytest.mark.parametrize("dtype", [BF16, F16], ids=str)
def test_an_exp_that_is_a_little_off_moves_no_edge_in_16_bits(dtype, off, monkeypatch):
    import order_pairs

    plain = order_pairs.exp
    monkeypatch.setattr(
        order_pairs,
        "exp",
        lambda x, how: torch.where((x < 0) & (x > -100), 1 + off, 1.0) * plain(x, how),
    )
    edges, _ = recover_edges(RescaleEdges(side(pair_of(dtype, tile=3, split=6), dtype, keys=10)))
    assert edges == Edges((3, 6, 9), (6,))


def test_what_was_measured_once_is_not_measured_again():
    which = side(pair())
    RescaleEdges(which)
    before = which.calls
    assert before > 0
    RescaleEdges(which)
    assert which.calls == before


# what cannot be read


def spoilt(how: How, change) -> Pair:
    """Decode's results go through ``change(out, call)``."""
    count = [0]

    def call(*args, **more):
        out, lse = decode(*args, how=how, **more)
        count[0] += 1
        change(out, count[0])
        return out, lse

    return replace(pair(), decode=by_keywords(call))


@pytest.mark.parametrize("place", [(0, 0, 0), (1, 2, 1), (1, 3, 3)], ids=str)
def test_a_weight_that_is_neither_rounded_once_nor_twice_is_told(place):
    """Of all the values of a launch one is a last bit off, at one of two neighbours."""
    measured: list[int] = []

    def change(out, call):
        if measured and call > measured[0]:
            assert out[place] > 0
            out[place] *= 1 + 2.0**-20  # twice would be half as far off

    which = side(spoilt(How(tile=3), change))
    ask = RescaleEdges(which)
    measured.append(which.calls)
    with pytest.raises(ProbeLied, match=r"decode, rescaling: a weight of .* expected"):
        ask([(2, 5)] * 8)


@pytest.mark.parametrize("place", [(0, 0, 0), (1, 3, 3)], ids=str)
@pytest.mark.parametrize("dtype", [BF16, F16], ids=str)
def test_one_column_whose_weights_keep_32_bits_is_not_measured_in_16(dtype, place):
    """What rescaling does there leaves no trace, so that nothing can be called the same."""
    narrow, wide = How(weights=dtype), How()

    def call(*args, **more):
        out, lse = decode(*args, how=narrow, **more)
        out[place] = decode(*args, how=wide, **more)[0][place]
        return out, lse

    mixed = replace(pair(), decode=by_keywords(call))
    with pytest.raises(NotMeasured, match="decode does not round weights to 16 bits before P V"):
        RescaleEdges(side(mixed, dtype))


def test_weights_that_are_dropped_show_no_step():
    """Of a weight of zero nothing can be said, however its factors multiply."""
    small = spoilt(How(), lambda out, call: out.masked_fill_(out < 2.0**-40, 0.0))
    with pytest.raises(NotMeasured, match="decode: no step was found at which two roundings"):
        RescaleEdges(side(small))


@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
def test_fewer_dimensions_than_heads_hold_two_neighbours_each(dtype):
    how = How(tile=3, split=6, weights=dtype)
    ask = RescaleEdges(side(pair(how), dtype, heads=(8, 1, 4 if dtype == F32 else 12)))
    asked = [(b, c) for b in range(7) for c in range(7) if abs(b - c) == 3]
    assert ask(asked).tolist() == [closed(b, c, 7, how, dtype) for b, c in asked]


def test_three_keys_are_needed():
    with pytest.raises(NotMeasured, match="fewer than three keys"):
        RescaleEdges(side(pair(), keys=2))
    assert recover_edges(RescaleEdges(side(pair(), keys=3)))[0] == Edges((), ())
    one = side(pair(), keys=3, heads=(1, 1, 4), batch=1)
    assert recover_edges(RescaleEdges(one))[0] == Edges((), ())


# edges from answers


class Blocks:
    """Answers as 16-bit kernels do: a block is closed where a neighbour of b's is in it."""

    def __init__(self, n: int, edges: Edges) -> None:
        self.side = SimpleNamespace(keys=n, calls=5, which="decode")
        self.edges, self.probes, self.asked = edges, 7, []

    def __call__(self, asked):
        self.side.calls += 1
        self.probes += len(asked)
        self.asked.append(list(asked))
        return np.array([self.closed(*each) for each in asked], bool)

    def closed(self, b: int, c: int) -> bool:
        assert b != c, "a key is asked about itself"
        starts = self.edges.up if b < c else self.edges.down

        def block(x: int) -> int:
            return sum(start <= x for start in starts)

        near = [a for a in (b - 1, b + 1) if a != c and 0 <= a < self.side.keys]
        return block(b) != block(c) and any(block(a) == block(b) for a in near)


def structures(n: int, way: str) -> list[tuple[int, ...]]:
    """All edges that leave a trace: ascending no block but the last has one key, descending none
    but the first."""
    found = []
    for count in range(n):
        for at in itertools.combinations(range(1, n), count):
            sizes = np.diff([0, *at, n])
            if (sizes[:-1] if way == "up" else sizes[1:]).min(initial=2) >= 2:
                found.append(at)
    return found


@pytest.mark.parametrize("n", [3, 4, 5, 6, 7, 8])
def test_any_edges_are_recovered_and_no_others_are_certified(n):
    every = [Edges(up, ()) for up in structures(n, "up")]
    every += [Edges((), down) for down in structures(n, "down")]
    every += [Edges(up, up) for up in set(structures(n, "up")) & set(structures(n, "down"))]
    for edges in every:
        ask = Blocks(n, edges)
        found, stats = recover_edges(ask)
        assert found == edges
        assert (stats.launches, stats.rounds) == (len(ask.asked),) * 2
        assert stats.probes == sum(map(len, ask.asked)) == ask.probes - 7
        assert 0 <= stats.seconds < 60
        for claimed in every:
            ask = Blocks(n, edges)
            seen, stats = certify_edges(ask, claimed)
            assert (seen == "") == (claimed == edges), (edges, claimed)
            assert (stats.launches, stats.rounds, stats.probes) == (1, 1, len(ask.asked[0]))
            assert 0 <= stats.seconds < 60


@pytest.mark.parametrize("edge", [4, 6])
def test_a_last_block_of_one_key_hides_no_edge_before_it(edge):
    """Descending, its weight is 1 before it is scaled, so the certificate asks about key 6."""
    hidden = Blocks(8, Edges((), (edge, 7)))
    assert recover_edges(hidden)[0] == Edges((), (edge,) if edge == 4 else ())
    assert certify_edges(hidden, Edges((), ()))[0] == (
        "decode closes a block between keys 0 and 6, descending" if edge == 4 else ""
    )


def test_nor_does_a_block_of_one_key_between_two_others():
    hidden = Blocks(8, Edges((), (1, 3, 4)))
    assert certify_edges(hidden, Edges((), (4,)))[0] == (
        "decode closes a block between keys 0 and 2, descending"
    )


@pytest.mark.parametrize(
    ("edges", "claimed", "words"),
    [
        (Edges((4,), ()), Edges((), ()), "decode closes a block between keys 0 and 7, ascending"),
        (Edges((), (4,)), Edges((), ()), "decode closes a block between keys 0 and 6, descending"),
        (Edges((), ()), Edges((4,), ()), "decode closes no block between keys 3 and 4, ascending"),
        (Edges((), ()), Edges((), (4,)), "decode closes no block between keys 3 and 4, descending"),
        (Edges((5,), ()), Edges((4,), ()), "decode closes no block between keys 3 and 4, ascend"),
        (Edges((4, 6), ()), Edges((4,), ()), "decode closes a block between keys 4 and 7, ascend"),
    ],
)
def test_the_first_answer_that_differs_is_told(edges, claimed, words):
    assert certify_edges(Blocks(8, edges), claimed)[0].startswith(words)


def test_halves_that_contradict_the_whole_are_no_tree():
    class Liar(Blocks):
        def closed(self, b, c):
            return (b, c) == (0, 7)

    with pytest.raises(NotATree, match="between keys 0 and 7, but neither before nor after key 3"):
        recover_edges(Liar(8, Edges((), ())))


def test_a_long_row_takes_few_rounds():
    ask = Blocks(1024, Edges((), (512,)))
    assert recover_edges(ask)[1].rounds == 10
    assert ask.probes - 7 == 2 + 2 * 9
