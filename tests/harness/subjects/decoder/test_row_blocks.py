"""Depths that are cut over ranks: the additions of a tree, the same at every number of ranks."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from kvparity.controls.ranks import ring_sum
from kvparity.core.bits import differing
from kvparity.core.errors import UnsupportedError
from kvparity.subjects.decoder.config import DecoderShape
from kvparity.subjects.decoder.presets import preset
from kvparity.subjects.decoder.row_blocks import RowBlocks, row_blocks, tree_sum
from kvparity.subjects.decoder.seeded import seeded
from kvparity.subjects.decoder.sharding import shards
from kvparity.subjects.decoder.subject import DecoderSubject
from kvparity_kernels.linear import linear
from kvparity_kernels.order import ReductionOrder

ORDER = ReductionOrder()
SHAPE = replace(
    preset("tiny"), layers=2, heads=8, kv_heads=4, hidden=32, intermediate=64, vocab=64,
    max_positions=32, qkv_bias=True, o_bias=True, mlp_bias=True, attention_sinks=True,
)  # fmt: skip
WIDE = replace(SHAPE, kv_heads=8, intermediate=68)
FOLLOWING = replace(SHAPE, kv_shared_layers=1, shared_head_dim=8)


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def unlike(a: Tensor, b: Tensor) -> bool:
    return bool(differing(a, b).any())


def test_a_tree_adds_neighbours_first() -> None:
    parts = random(8, 64)
    a, b, c, d, e, f, g, h = parts.numpy()
    tree = ((a + b) + (c + d)) + ((e + f) + (g + h))
    assert tree.dtype == np.float32
    assert not unlike(tree_sum(list(parts)), torch.from_numpy(tree))
    chain = parts[0]
    for part in parts[1:]:
        chain = chain + part
    assert unlike(tree_sum(list(parts)), chain)
    with pytest.raises(ValueError, match="shorter"):
        tree_sum(list(parts[:3]))


def by_ranks(x: Tensor, w: Tensor, bias: Tensor | None, ranks: int, own: int) -> Tensor:
    """Every rank's part in turn, as the processes compute it; the last one has all sums."""
    sums: list[Tensor] = []

    def total(partial: Tensor) -> Tensor:
        assert partial.dtype == torch.float32
        sums.append(partial)
        return tree_sum(sums) if len(sums) == ranks else partial

    for a, b in zip(x.chunk(ranks, dim=1), w.chunk(ranks, dim=1), strict=True):
        found = RowBlocks(own, total).linear(linear, a, b, bias, order=ORDER, twin=True)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
def test_every_number_of_ranks_has_the_bits_of_one(dtype: torch.dtype, bias: bool) -> None:
    x, w = random(5, 128, dtype=dtype), random(48, 128, dtype=dtype, seed=2)
    added = random(48, dtype=dtype, seed=3) if bias else None
    one = RowBlocks(8).linear(linear, x, w, added, order=ORDER, twin=True)
    assert one.dtype == dtype
    for ranks in (1, 2, 4, 8):
        assert not unlike(by_ranks(x, w, added, ranks, 8 // ranks), one), ranks
    exact = x.double() @ w.double().T + (0 if added is None else added.double())
    assert float((one.double() - exact).abs().max()) < (1e-4 if dtype is torch.float32 else 0.2)


def test_a_rank_that_adds_its_part_in_one_chain_has_other_bits() -> None:
    x, w = random(5, 128), random(48, 128, seed=2)
    one = RowBlocks(8).linear(linear, x, w, None, order=ORDER, twin=True)
    for ranks in (1, 2, 4):
        assert unlike(by_ranks(x, w, None, ranks, 1), one), ranks
    chain = linear(x, w, None, order=ORDER, twin=True)
    assert not unlike(by_ranks(x, w, None, 1, 1), chain)


def test_a_ring_adds_each_chunk_from_another_rank_on() -> None:
    a, b, c, d = parts = list(random(4, 3, 8))
    columns = (
        ((b + c) + d) + a, ((c + d) + a) + b, ((d + a) + b) + c, ((a + b) + c) + d,
    )  # fmt: skip
    wanted = torch.cat([each[:, 2 * n : 2 * n + 2] for n, each in enumerate(columns)], dim=1)
    assert not unlike(ring_sum(parts), wanted)
    assert unlike(ring_sum(parts), tree_sum(parts))
    # Two numbers have one sum, whichever comes first: two ranks do not show an order.
    assert not unlike(ring_sum(parts[:2]), tree_sum(parts[:2]))


def subject(shape: DecoderShape, **more: object) -> DecoderSubject:
    weights = seeded(shape, 0, torch.float32, torch.device("cpu"))
    return DecoderSubject(
        shape, weights, kv_cache="float32", twin=True, blocks=row_blocks(4, shape), **more
    )


@pytest.mark.parametrize("shape", [SHAPE, FOLLOWING], ids=["owners", "follower"])
def test_ranks_hold_every_weight_once_between_them(shape: DecoderShape) -> None:
    whole = subject(shape)
    parts = [each.open(lambda partial: partial) for each in shards(whole, 2)]
    assert [(p.model.config.heads, p.model.config.kv_heads) for p in parts] == [(4, 2)] * 2
    assert [p.model.blocks.own for p in parts] == [2, 2]
    assert {p.max_positions for p in parts} == {whole.max_positions}
    for number, layer in enumerate(whole.model.weights.layers):
        own = [each.model.weights.layers[number] for each in parts]
        follower = shape is FOLLOWING and number == 1
        width = 8 if follower else 16
        heads = 8 if follower else 8 + 4 + 4
        for name in ("qkv", "qkv_bias"):
            rows = [getattr(each, name).reshape(heads // 2, width, -1) for each in own]
            stacks = [[4], [4]] if follower else [[4, 2, 2], [4, 2, 2]]
            pieces = [r.split(s) for r, s in zip(rows, stacks, strict=True)]
            joined = torch.cat([torch.cat(each) for each in zip(*pieces, strict=True)])
            assert torch.equal(joined.reshape(getattr(layer, name).shape), getattr(layer, name))
        for name in ("gate_up", "gate_up_bias"):
            halves = [getattr(each, name).chunk(2) for each in own]
            joined = torch.cat([torch.cat(each) for each in zip(*halves, strict=True)])
            assert torch.equal(joined, getattr(layer, name))
        for name in ("o", "down"):
            joined = torch.cat([getattr(each, name) for each in own], dim=1)
            assert torch.equal(joined, getattr(layer, name))
        assert torch.equal(torch.cat([each.sinks for each in own]), layer.sinks)
        cut = {"qkv", "qkv_bias", "gate_up", "gate_up_bias", "o", "down", "sinks"}
        for field in fields(layer):
            if field.name not in cut and getattr(layer, field.name) is not None:
                for each in own:  # norms, and biases that are added behind the sum
                    assert torch.equal(getattr(each, field.name), getattr(layer, field.name))


def test_static_scales_are_cut_by_heads() -> None:
    whole = subject(SHAPE)
    scales = torch.arange(1.0, 5.0)
    layers = tuple(
        replace(w, k_scale=scales, v_scale=2 * scales) for w in whole.model.weights.layers
    )
    whole.model = replace(whole.model, weights=replace(whole.model.weights, layers=layers))
    own = [each.weights.layers[0] for each in shards(whole, 4)]
    assert [(float(each.k_scale), float(each.v_scale)) for each in own] == [
        (1, 2), (2, 4), (3, 6), (4, 8),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "size", "words"),
    [
        (SHAPE, 3, "3 ranks cannot hold heads 8 in equal parts"),
        (SHAPE, 8, "8 ranks cannot hold kv_heads 4 in equal parts"),
        (
            replace(SHAPE, kv_heads=8, intermediate=68),
            8,
            "8 ranks cannot hold intermediate 68 in equal parts",
        ),
    ],
)
def test_what_does_not_go_into_equal_parts_is_refused(
    shape: DecoderShape, size: int, words: str
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        shards(subject(shape), size)
    assert str(caught.value) == words


def test_a_depth_that_blocks_do_not_divide_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="the depth of down_proj is 68, which does not go"):
        row_blocks(8, replace(SHAPE, intermediate=68))
    with pytest.raises(UnsupportedError, match="the depth of o_proj is 64"):
        row_blocks(128, FOLLOWING)
    assert row_blocks(None, SHAPE) is None
