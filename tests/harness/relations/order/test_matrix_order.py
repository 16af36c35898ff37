"""The order of a product of matrices: told only if its replay gives all bits of the row."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kvparity.relations.order.matrix_order import MatrixCall, added

Product = Callable[[Tensor, Tensor], Tensor]


def chunked(size: int) -> Product:
    """``[K] @ [K, N]`` in chunks of the depth, each a chain, their sums added ascending."""

    def product(row: Tensor, matrix: Tensor) -> Tensor:
        total: Tensor | None = None
        for start in range(0, len(row), size):
            part: Tensor | None = None
            for k in range(start, min(start + size, len(row))):
                term = row[k].float() * matrix[k].float()
                part = term if part is None else part + term
            assert part is not None
            total = part if total is None else total + part
        assert total is not None
        return total.to(row.dtype)

    return product


def wide(row: Tensor, matrix: Tensor) -> Tensor:
    return (row.double() @ matrix.double()).to(row.dtype)


def call(product: Product, dtype: torch.dtype, depth: int = 64, bias: float = 0.0) -> MatrixCall:
    rng = torch.Generator().manual_seed(0)
    row, matrix = (torch.randn(n, generator=rng).to(dtype) for n in (depth, depth * 48))
    matrix = matrix.view(depth, 48)
    gave, more = product(row, matrix), torch.full((48,), bias).to(dtype)
    if bias:
        gave = (product(row.float(), matrix.float()) + more.float()).to(dtype)
    return MatrixCall(row[None], matrix[None], gave[None], more if bias else None, product)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("size", "words"), [(16, "((.*16)*4)"), (64, "(.*64)")])
def test_chunks_of_the_depth(size: int, words: str, dtype: torch.dtype) -> None:
    found = added(call(chunked(size), dtype))
    assert found is not None
    assert found.words() == words


def test_a_result_of_16_bits_counts_a_deep_product_in_parts() -> None:
    found = added(call(chunked(96), torch.bfloat16, depth=300, bias=0.5))
    assert found is not None
    assert found.words() == "((.*96)*3 (.*12))"


def test_bits_that_no_replay_gives_are_not_explained() -> None:
    right = call(chunked(16), torch.float32)
    assert added(right) is not None
    moved = MatrixCall(right.left, right.right, right.gave + 1e-6, None, right.run)
    assert added(moved) is None
    assert added(call(wide, torch.float32)) is None
