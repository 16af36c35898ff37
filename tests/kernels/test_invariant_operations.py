"""The operations behind the mode: twins, accuracy, and elementwise results at any place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own short name

import kvparity_kernels
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.overrides import naive
from kvparity_kernels.overrides.elementwise import even
from kvparity_kernels.overrides.rows import matmul, row_sum, softmax

UNIT = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
DTYPES = list(UNIT)
ORDER = ReductionOrder(block_m=16)


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def differing(a: Tensor, b: Tensor) -> int:
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    view = torch.int32 if a.dtype == torch.float32 else torch.int16
    return int((a.contiguous().view(view) != b.contiguous().view(view)).sum())


@pytest.mark.parametrize("dtype", DTYPES)
def test_twins_are_the_interpreted_kernels(dtype: torch.dtype) -> None:
    for batch, m, k, n in (
        *((1, 1, 1, 1), (2, 3, 40, 5), (3, 1, 33, 70), (1, 18, 64, 65)),
        *((2, 3, 8, 64), (2, 16, 8, 3)),  # the last tile of a matrix is full
    ):
        a, b = draw(batch, m, k, dtype=dtype), draw(batch, n, k, dtype=dtype, seed=1).mT
        twin = matmul(a, b, order=ORDER, twin=True)
        assert differing(matmul(a, b, order=ORDER, twin=False), twin) == 0
        strided = draw(batch, m, 2 * k, dtype=dtype)[:, :, ::2]
        twin = matmul(strided, b, order=ORDER, twin=True)
        assert differing(matmul(strided, b, order=ORDER, twin=False), twin) == 0
        wide = matmul(a, b, order=ORDER, out_dtype=torch.float32, twin=True)
        assert differing(wide.to(dtype), matmul(a, b, order=ORDER, twin=True)) == 0
    for width in (1, 7, 64, 100, 1024, 2049, 3500):
        x = draw(3, width, dtype=dtype) * 3
        x[0, width // 2 + 1 :] = -torch.inf
        for log in (False, True):
            assert differing(softmax(x, log=log, twin=False), softmax(x, log=log, twin=True)) == 0
        x = draw(3, width, dtype=dtype)
        x[1] = -0.0
        for divisor in (1.0, float(width)):
            one, other = (row_sum(x, divisor=divisor, twin=twin) for twin in (False, True))
            assert differing(one, other) == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_close_to_float64(dtype: torch.dtype) -> None:
    """Standard bounds: (terms + 1) roundings of float32 on the sum of magnitudes, one at the end.

    Lanes and halving have at most ceil(n / 1024) + 10 roundings on a chain.
    """
    u = UNIT[torch.float32]
    a, b = draw(2, 4, 300, dtype=dtype), draw(2, 300, 5, dtype=dtype, seed=1)
    exact = naive.matmul(a, b)
    bound = 301 * u * naive.matmul(a.abs(), b.abs()) + 1.01 * UNIT[dtype] * exact.abs() + 1e-7
    assert ((matmul(a, b, twin=True).double() - exact).abs() <= bound).all()
    wrong = naive.matmul(a[:, :, 1:], b[:, 1:])  # control: one term left out
    assert ((wrong - exact).abs() > bound).any()

    x = draw(6, 3000, dtype=dtype)
    exact = naive.row_sum(x, 3000)
    bound = 14 * u * naive.row_sum(x.abs(), 3000) + 1.01 * UNIT[dtype] * exact.abs() + 1e-7
    assert ((row_sum(x, divisor=3000, twin=True).double() - exact).abs() <= bound).all()
    assert ((naive.row_sum(x, 2900) - exact).abs() > bound).any()  # control: another divisor

    # The difference to the top is off by u of at most 10, exp by 2 ulps, the sum by 13, and the
    # quotient or logarithm (of at most 12) by a few more.
    for log in (False, True):
        exact = naive.softmax(x, log=log)
        relative = (10 + 4 + 13 + 3) * u + 1.01 * UNIT[dtype]
        bound = relative * exact.abs() + (60 * u if log else 6e-8 * (dtype == torch.float16))
        found = softmax(x, log=log, twin=True)
        assert ((found.double() - exact).abs() <= bound).all()
        wrong = naive.softmax(x.double() * 1.01, log=log)  # control: a temperature
        assert ((wrong - exact).abs() > bound).any()


def test_rows_are_cut_where_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    x = draw(7, 10)
    whole = row_sum(x, twin=True), softmax(x, twin=True)
    for elements in (1, 10, 29, 30):
        monkeypatch.setattr("kvparity_kernels.overrides.twin.ELEMENTS", elements)
        assert differing(row_sum(x, twin=True), whole[0]) == 0
        assert differing(softmax(x, twin=True), whole[1]) == 0


def test_extreme_rows() -> None:
    x = torch.tensor([[-torch.inf, -torch.inf], [torch.nan, 1.0], [3.0, -torch.inf]])
    for twin in (False, True):
        assert softmax(x, twin=twin)[:2].isnan().all()
        assert softmax(x, twin=twin)[2].tolist() == [1.0, 0.0]
    with kvparity_kernels.invariant():
        assert torch.ops.aten._safe_softmax(x, -1)[0].tolist() == [0.0, 0.0]


ELEMENTWISE = {
    "exp": torch.exp,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "rsqrt": lambda x: torch.rsqrt(x.abs() + 0.1),
    "cos": torch.cos,
    "sin": torch.sin,
    "pow": lambda x: (x.abs() + 0.1) ** 1.7,
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "softplus": F.softplus,
    "alpha": lambda x: torch.add(x, x.abs(), alpha=0.37),
    "lerp": lambda x: torch.lerp(x, x.abs(), 0.3),
    "log": lambda x: torch.log(x.abs() + 0.1),
    "power of a number": lambda x: 10000.0 ** x.clamp(-9, 1),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_an_element_does_not_depend_on_its_place(name: str, dtype: torch.dtype) -> None:
    function = ELEMENTWISE[name]
    x = draw(1001, dtype=dtype) * 4
    x[::50] *= 1000  # neighbours for which vector code may choose another algorithm
    with kvparity_kernels.invariant() as report:
        full = function(x)
        for start, stop in ((0, 1), (1, 9), (500, 501), (3, 1001), (0, 999), (985, 1001)):
            assert differing(function(x[start:stop]), full[start:stop]) == 0
        assert differing(function(torch.stack([x, x], 1)[:, 1]), full) == 0
        assert differing(function(x[:1000].view(8, 125)).view(-1), full[:1000]) == 0
    assert report.even


@pytest.mark.parametrize("alone", [False, True])
def test_no_element_is_left_over(alone: bool) -> None:
    """Against an operation with a planted tail, which without it is seen."""

    def tailed(x: Tensor) -> Tensor:
        y = x.flatten().clone()
        y[len(y) - len(y) % 16 :] += 1  # what vector code of 16 elements leaves over
        return y.view(x.shape)

    for shape, seen in (((5, 9), 13), ((1,), 1), ((3, 0), 0)):
        x = draw(*shape)
        assert differing(tailed(x), x) == seen
        assert differing(even(tailed, (x,), {}, alone=alone), x) == 0


def test_neighbours_do_not_matter_alone() -> None:
    def by_the_largest(x: Tensor) -> Tensor:
        y = x.view(-1, 8)
        return torch.where(y.amax(1, keepdim=True) > 100, y + 1, y).view(x.shape)

    x = draw(5, 8)
    x[1, 3] = 1000
    assert differing(by_the_largest(x), x) > 1
    assert differing(even(by_the_largest, (x,), {}, alone=True), x) == 1


def test_broadcasting_and_promotion_are_torchs() -> None:
    calls: list[tuple[Any, ...]] = [
        (torch.pow, draw(4, 1).abs(), draw(3)),
        (torch.pow, draw(4).abs().bfloat16(), torch.tensor(2.0)),
        (torch.pow, torch.tensor(2.0), draw(5)),
        (torch.pow, torch.arange(5), torch.tensor(0.5)),
        (torch.atan2, draw(2, 3), draw(2, 3).bfloat16()),
        (torch.exp, torch.tensor(1.5)),
        (torch.exp, torch.arange(4)),
        (torch.addcmul, draw(4), draw(1), draw(2, 4)),
    ]
    for function, *args in calls:
        plain = function(*args)
        with kvparity_kernels.invariant() as report:
            found = function(*args)
        assert (found.dtype, found.shape) == (plain.dtype, plain.shape)
        torch.testing.assert_close(found, plain)  # the last bits may be others
        assert report.even


def test_refusals() -> None:
    x = draw(2, 3)
    with pytest.raises(ValueError, match=r"matmul: b has shape \[1, 2, 3\], expected \[1, 3, any"):
        matmul(x[None], x[None], twin=True)
    with pytest.raises(ValueError, match=r"matmul: a has shape \[2, 3\], expected \[any, any"):
        matmul(x, x[None], twin=True)
    there = x[None].to("meta")
    with pytest.raises(ValueError, match="twin=True is for CPU tensors"):
        matmul(there, there.mT, twin=True)
    with pytest.raises(ValueError, match=r"softmax: x has dtype torch\.float64"):
        softmax(x.double(), twin=True)
    with pytest.raises(ValueError, match=r"row_sum: x has shape \[3\]"):
        row_sum(x[0], twin=True)
    with pytest.raises(ValueError, match="twin=True is for CPU tensors"):
        row_sum(x.to("meta"), twin=True)
