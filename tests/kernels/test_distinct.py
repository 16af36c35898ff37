"""Rows and columns that are computed once: only those that are alike by their bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kvparity_kernels import distinct, fused_products
from kvparity_kernels.fixed_arithmetic import Array, fma_dot
from kvparity_kernels.tensor_cores import unit

Given = tuple[Array, Array, Array]


def drawn() -> Given:
    """[6, 4] @ [4, 5] + [6, 5], small numbers that bfloat16 has."""
    rng = np.random.default_rng(0)
    a, b, c = (rng.integers(1, 99, size).astype(np.float32) for size in ((6, 4), (4, 5), (6, 5)))
    return a, b, c


def rows(a: Array, b: Array, c: Array) -> None:
    a[3:], c[3:] = a[3], c[3]


def columns(a: Array, b: Array, c: Array) -> None:
    b[:, 1:], c[:, 1:] = b[:, 1:2], c[:, 1:2]


def both(a: Array, b: Array, c: Array) -> None:
    a[:], b[:], c[:] = 1, 2, 3


def a_start(a: Array, b: Array, c: Array) -> None:
    rows(a, b, c)
    c[4, 2] += 1


def a_start_of_columns(a: Array, b: Array, c: Array) -> None:
    columns(a, b, c)
    c[0, 3] += 1


def signs(a: Array, b: Array, c: Array) -> None:
    """Equal numbers of other bits: of zeros the sign is carried to the result."""
    rows(a, b, c)
    b[:], c[:] = 0, -0.0
    a[:] = -1
    c[4] = 0


def nan(a: Array, b: Array, c: Array) -> None:
    rows(a, b, c)
    a[3:, 1] = np.nan


CASES: list[tuple[Callable[[Array, Array, Array], None], tuple[int, int]]] = [
    (lambda a, b, c: None, (6, 5)),
    (rows, (4, 5)),
    (columns, (6, 2)),
    (both, (1, 1)),
    (a_start, (6, 5)),
    (a_start_of_columns, (6, 5)),
    (signs, (6, 1)),
    (nan, (4, 5)),
]


def fused(a: Array, b: Array, c: Array) -> Array:
    return fused_products.dot(a, b, c, "bfloat16", unit("sm_90", "bfloat16"))


@pytest.mark.parametrize("product", [fma_dot, fused])
@pytest.mark.parametrize(("change", "computed"), CASES)
def test_no_bit_depends_on_it(
    change: Callable[[Array, Array, Array], None],
    computed: tuple[int, int],
    product: distinct.Product,
) -> None:
    given = drawn()
    change(*given)
    seen: list[tuple[int, ...]] = []

    def spy(a: Array, b: Array, c: Array) -> Array:
        seen.append((len(a), b.shape[1]))
        return product(a, b, c)

    found = distinct.once(spy, *given)
    assert found.tobytes() == product(*given).tobytes()
    assert seen == [computed]


def test_batches_are_computed_as_they_are() -> None:
    a, b, c = (np.ones((2, 3, 3), np.float32) for _ in range(3))
    assert distinct.once(fma_dot, a, b, c).tobytes() == fma_dot(a, b, c).tobytes()
