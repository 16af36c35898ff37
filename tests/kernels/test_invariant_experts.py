"""What mixtures of experts are made of under invariant(): grouped products, rows added up."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kvparity_kernels import invariant
from kvparity_kernels.overrides import NotInvariantError


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def bits_differ(a: Tensor, b: Tensor) -> int:
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    return int((a.contiguous().view(torch.uint8) != b.contiguous().view(torch.uint8)).sum())


OFFS = torch.tensor([3, 3, 4, 11], dtype=torch.int32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_of_a_grouped_product_does_not_follow_its_group(dtype: torch.dtype) -> None:
    a, b = draw(12, 64, dtype=dtype), draw(4, 64, 48, seed=1, dtype=dtype)
    with invariant() as report:
        found = torch._grouped_mm(a, b, offs=OFFS)
        for row in range(11):
            group = int((row >= OFFS).sum())
            alone = torch._grouped_mm(
                a[row : row + 1], b[group : group + 1], offs=torch.tensor([1], dtype=torch.int32)
            )
            assert bits_differ(alone[0], found[row]) == 0
        assert not found[11].any()  # behind the last group
        whole = torch._grouped_mm(a.reshape(4, 3, 64), b)
        assert bits_differ(whole[0], found[:3]) == 0
    assert report.overridden["_grouped_mm"] == 13
    for row in range(11):
        w = b[int((row >= OFFS).sum())].double()
        unit = torch.finfo(dtype).eps + 128 * 2.0**-24
        size = float((a[row].double().abs() @ w.abs()).max())
        assert (found[row].double() - a[row].double() @ w).abs().max() < unit * size


def test_other_grouped_products_say_what_to_set() -> None:
    words = "experts_implementation to eager"
    with invariant():
        with pytest.raises(NotInvariantError, match=words):
            torch._grouped_mm(draw(16, 16), draw(16, 16), offs=torch.tensor([8, 16]).int())
        with pytest.raises(NotInvariantError, match=f"with a bias.*{words}"):
            torch.ops.aten._grouped_mm(draw(11, 64), draw(4, 64, 48), OFFS, draw(4, 48))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_are_added_in_the_order_of_the_index(dtype: torch.dtype) -> None:
    index = torch.tensor([2, 0, 2, 2, 4, 0])
    x, source = draw(5, 33, dtype=dtype), draw(6, 33, seed=1, dtype=dtype)
    expected = x.clone()
    for place, row in enumerate(index.tolist()):
        expected[row] = expected[row] + source[place]
    with invariant() as report:
        assert bits_differ(x.index_add(0, index, source), expected) == 0
        inside = x.clone()
        inside.index_add_(0, index, source)
        assert bits_differ(inside, expected) == 0
        across = x.T.contiguous().index_add(1, index, source.T)
        assert bits_differ(across.T, expected) == 0
        twice = x.index_add(0, index[:1], source[:1], alpha=2)
        assert bits_differ(twice[2], x[2] + 2 * source[0]) == 0
        # The control: in another order the sums are others.
        assert bits_differ(x.index_add(0, index.flip(0), source.flip(0)), expected) > 0
    assert report.overridden["index_add"] == 5


def test_counts_are_whole_numbers() -> None:
    experts = torch.tensor([0, 3, 3, 1, 3])
    with invariant() as report:
        counts = torch.histc(experts.float(), bins=4, min=0, max=3)
        assert counts.tolist() == [1, 1, 0, 3]
        assert counts.cumsum(0, dtype=torch.int32).tolist() == [1, 2, 2, 5]
        with pytest.raises(NotInvariantError, match="cumsum adds in an order"):
            counts.cumsum(0)
    assert not report.passed
