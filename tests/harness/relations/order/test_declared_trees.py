"""The trees that an order declares against loops in numpy that add as the kernels do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kvparity.relations.order.canonical import chain, denominator_order, key_order, rescale_edges
from kvparity_kernels.order import ReductionOrder

ORDERS = [
    ReductionOrder(split=32, tile=16),
    ReductionOrder(split=16, tile=16),
    ReductionOrder(split=64, tile=32),
]
FIRSTS = (0, 1, 5, 15, 16, 17, 30, 31, 32, 33, 48, 63, 64, 70)
SIZES = [
    (n, first)
    for n in (3, 15, 16, 17, 18, 31, 33, 34, 48, 63, 64, 65, 66, 97)
    for first in FIRSTS
    if first < n
]
NOTHING = None


def plus(a, b):
    return b if a is NOTHING else a if b is NOTHING else a + b


def keys_added(order, x, n, first):
    """x ``[n - first, columns]``: each key goes into the sum of its split, that into the total."""
    total, part, of = NOTHING, NOTHING, first // order.split
    for key in range(first, n):
        if key // order.split != of:
            total, part, of = plus(total, part), NOTHING, key // order.split
        part = plus(part, x[key - first])
    return plus(total, part)


def weights_added(order, x, n, first):
    """As ``keys_added``, where a tile is added up by halves; what is hidden is 0."""
    padded = np.zeros((-(-n // order.split) * order.split, x.shape[1]), np.float32)
    padded[first:n] = x[: n - first]
    total = np.zeros(x.shape[1], np.float32)
    for split in padded.reshape(-1, order.split, x.shape[1]):
        part = np.zeros_like(total)
        for tile in split.reshape(-1, order.tile, x.shape[1]):
            while len(tile) > 1:
                tile = tile[: len(tile) // 2] + tile[len(tile) // 2 :]
            part = part + tile[0]
        total = total + part
    return total


def terms(n: int):
    return np.random.default_rng(n).uniform(0.5, 2.0, (n, 24)).astype(np.float32)


def same(tree, x, total) -> bool:
    return tree.n == len(x) and np.array_equal(tree.replay(torch.from_numpy(x)).numpy(), total)


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: f"{order.split}/{order.tile}")
def test_declared_trees_add_as_the_loops_do(order):
    for n, first in SIZES:
        x = terms(n - first)
        assert same(key_order(order, n, first), x, keys_added(order, x, n, first)), (n, first)
        total = weights_added(order, x, n, first)
        assert same(denominator_order(order, n, first), x, total), (n, first)
        more = terms(n - first + 1)
        with_sink = weights_added(order, more, n, first) + more[-1]
        assert same(denominator_order(order, n, first, sink=True), more, with_sink), (n, first)
    assert key_order(order, 40) == key_order(order, 40, 0)
    assert denominator_order(order, 40) == denominator_order(order, 40, 0, sink=False)


def test_a_chain_is_a_running_sum():
    for n in (1, 2, 3, 20):
        x = terms(n)
        assert same(chain(n), x, keys_added(ReductionOrder(split=64, tile=16), x, n, 0))


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: f"{order.split}/{order.tile}")
def test_edges_are_where_a_new_tile_or_split_begins_and_shows(order):
    """A key's weight shows that its block was closed unless it is alone in the block and so 1."""
    for n, first in SIZES:
        up = [
            at
            for at in range(first + 1, n)
            if at // order.tile != (at - 1) // order.tile and at - first > 1
        ]
        down = [
            at
            for at in range(first + 1, n)
            if at // order.split != (at - 1) // order.split and n - at > 1
        ]
        expected = (tuple(at - first for at in up), tuple(at - first for at in down))
        assert rescale_edges(order, n, first) == expected, (n, first)
    assert rescale_edges(order, 80) == rescale_edges(order, 80, 0)
