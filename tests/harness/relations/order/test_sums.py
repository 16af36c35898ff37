from __future__ import annotations

import numpy as np
import pytest
import torch

from kvparity.core.bits import differing
from kvparity.relations.order import ProbeLied, SumOracle, certify, recover
from kvparity.relations.order.canonical import chain
from kvparity.relations.order.encoding import split_log2


def loop(x: torch.Tensor) -> torch.Tensor:
    total = x[:, 0]
    for column in range(1, x.shape[1]):
        total = total + x[:, column]
    return total


SUMS = {
    "numpy sum": lambda x: torch.from_numpy(x.numpy().sum(1)),
    "torch sum": lambda x: x.sum(1),
    "torch matmul": lambda x: (x @ torch.ones(x.shape[1], 2))[:, 0],
    "loop": loop,
    "loop from the end": lambda x: loop(x.flip(1)),
}


@pytest.mark.parametrize("n", [2, 64, 100, 513])
@pytest.mark.parametrize("name", SUMS)
def test_the_recovered_tree_gives_the_bits_of_random_sums(name, n):
    function = SUMS[name]
    oracle = SumOracle(function, n)
    tree, _ = recover(oracle)
    assert certify(oracle, tree).holds
    x = torch.from_numpy(np.random.default_rng(n).normal(size=(64, n)).astype(np.float32))
    if tree.fan_out == 2:  # else this machine's library fuses additions, and replay needs an adder
        assert not differing(tree.replay(x.T.contiguous()), function(x)).any()
    if name == "loop":
        assert tree == chain(n)


def test_another_tree_does_not_give_the_bits():
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(64, 100)).astype(np.float32))
    backwards, _ = recover(SumOracle(SUMS["loop from the end"], 100))
    assert differing(backwards.replay(x.T.contiguous()), loop(x)).float().mean() > 0.3


def test_a_mask_that_swallows_too_little_is_seen():
    scaled = SumOracle(lambda x: loop(x) * 1.01, 64)
    with pytest.raises(ProbeLied, match="not whole numbers"):
        recover(scaled)
    weak = SumOracle(loop, 128, mask=2.0**20)
    tree, _ = recover(SumOracle(loop, 128))
    assert not certify(weak, tree).holds  # 1 is not lost beside 2**20


def test_three_16_bit_factors_make_a_precise_weight():
    for dtype, parts in ((torch.float32, 1), (torch.float16, 3), (torch.bfloat16, 3)):
        total = sum(split_log2(0.125, dtype, parts)) * 0.125
        assert abs(total / np.log(2) - 1) < 2.0**-22
    assert abs(split_log2(0.125, torch.bfloat16, 1)[0] * 0.125 / np.log(2) - 1) > 2.0**-12
