"""The mode that swaps torch's reductions: what it changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own short name

import kvparity_kernels
from kvparity_kernels.overrides import Invariant

invariant = kvparity_kernels.invariant
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def differing(a: Tensor, b: Tensor) -> int:
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    view = {8: torch.int64, 4: torch.int32, 2: torch.int16}[a.element_size()]
    return int((a.contiguous().view(view) != b.contiguous().view(view)).sum())


def rows_matter(func: Any, *args: Any, **kwargs: Any) -> Any:
    """An operation whose bits depend on how many rows there are: what is planted. By more than
    torch's own may: with one bit, what is planted can undo what a CPU does."""
    y = func(*args, **kwargs)
    return y * 2 if y.shape[0] > 1 else y


W, B = draw(37, 45, seed=1), draw(37, seed=2)
ROWWISE = {
    "linear": lambda x: F.linear(x, W.to(x.dtype), B.to(x.dtype)),
    "mm": lambda x: x.mm(W.to(x.dtype).t()),
    "addmm": lambda x: torch.addmm(B.to(x.dtype), x, W.to(x.dtype).t(), beta=0.5, alpha=3),
    "mv": lambda x: x.mv(W[0].to(x.dtype)),
    "addmv": lambda x: torch.addmv(x[:, 0], x, W[0].to(x.dtype)),
    "bmm": lambda x: x[:, None].bmm(W.to(x.dtype).t().expand(len(x), -1, -1)),
    "baddbmm": lambda x: torch.baddbmm(
        B.to(x.dtype), x[:, None], W.to(x.dtype).t().expand(len(x), -1, -1), beta=2
    ),
    "sum.dim_IntList": lambda x: x.sum(-1),
    "mean.dim": lambda x: x.mean(-1),
    "_softmax": lambda x: x.softmax(-1),
    "_log_softmax": lambda x: x.log_softmax(-1),
    "rms_norm": lambda x: F.rms_norm(x, (45,), x.new_ones(45) * 1.5, 1e-6),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ROWWISE)
def test_a_row_does_not_depend_on_the_others(name: str, dtype: torch.dtype) -> None:
    function, x = ROWWISE[name], draw(41, 45, dtype=dtype)
    with torch.inference_mode():
        plain = function(x)
        with invariant() as report:
            full = function(x)
            for at, rows in ((0, 1), (7, 1), (40, 1), (3, 5), (0, 40)):
                assert differing(function(x[at : at + rows]), full[at : at + rows]) == 0
        assert report.overridden[name] == 6
        assert not report.passed
        # Torch's own, in its own order: as close as eight roundings of values below 40.
        limit = 8 * 40 * torch.finfo(dtype).eps
        assert float((plain.double() - full.double()).abs().max()) < limit
        # Control: an operation that follows the number of rows is seen.
        with Invariant(planted={name: rows_matter}):
            assert differing(function(x)[7:8], function(x[7:8])) > 0


@pytest.mark.parametrize("name", ["linear", "addmm", "_softmax", "rms_norm"])
def test_bits_do_not_depend_on_autograd(name: str) -> None:
    x = draw(5, 45)
    found = []
    for context in (torch.inference_mode, torch.no_grad, torch.enable_grad):
        with invariant(), context():
            found.append(ROWWISE[name](x).detach().clone())
    assert differing(found[0], found[1]) == differing(found[0], found[2]) == 0


def test_gradients_of_products_are_in_the_fixed_order_too() -> None:
    x, w = draw(6, 45), W.clone().requires_grad_()
    with invariant() as report:
        (x @ w.t()).sum().backward()
    assert report.overridden["mm"] == 2
    assert w.grad is not None
    assert float((w.grad - x.sum(0)).abs().max()) < 1e-4


def test_forms_of_a_call() -> None:
    x = draw(4, 45)
    with invariant() as report:
        wanted = x.mm(W.t())
        out = torch.empty(0)
        torch.mm(x, W.t(), out=out)
        assert differing(out, wanted) == 0
        y = torch.zeros(4, 37)
        assert y.addmm_(x, W.t()) is y
        assert differing(y, wanted) == 0
        assert differing(torch.einsum("ik,jk->ij", x, W), wanted) == 0
        assert differing(x[0] @ W.t(), wanted[0]) == 0
        assert differing(torch.dot(x[0], W[0]), wanted[0, 0]) == 0
        silu = F.silu(x)
        assert differing(F.silu(x.clone(), inplace=True), silu) == 0
        assert differing(x.mean((0, 1), keepdim=True), x.reshape(1, -1).mean(1, keepdim=True)) == 0
        assert x.mean(()).shape == x.sum().shape == x[0, 0].sum(0).shape == ()
        assert differing(x.t().softmax(0), x.softmax(-1).t()) == 0
        assert torch.zeros(0, 45).mm(W.t()).shape == (0, 37)
        assert int(torch.zeros(3, 0).mm(torch.zeros(0, 2)).count_nonzero()) == 0
        assert torch.zeros(2, 0).softmax(-1).shape == (2, 0)
        assert x[0, 0].softmax(0).item() == 1.0
        assert torch.exp(x[:0]).shape == (0, 45)
        assert F.softmax(x.bfloat16(), -1, dtype=torch.float32).dtype == torch.float32
    assert report.overridden["mm"] > 4
    assert report.even["silu"] == 2


def test_masked_keys_behind_change_no_bit() -> None:
    """Decode sees N keys, prefill more of them behind a mask: the same bits."""
    q, k, v = draw(3, 1, 16), draw(3, 90, 16, seed=1), draw(3, 90, 16, seed=2)
    v[:, 50:60] = -v[:, 50:60].abs()  # zeros times these are -0
    with invariant():
        for keys in (1, 2, 31, 64, 65, 89):
            mask = torch.zeros(90).masked_fill(torch.arange(90) >= keys, -3.4e38)
            few = (q @ k[:, :keys].mT).softmax(-1) @ v[:, :keys]
            many = (q @ k.mT + mask).softmax(-1) @ v
            assert differing(few, many) == 0
        zero = torch.zeros(1, 3, 4) @ torch.full((1, 4, 2), -1.0)
        assert not zero.signbit().any()  # a chain starts at +0 and stays there
        # Control: a key that is not masked is seen.
        mask[89] = -3.0
        assert differing(few, (q @ k.mT + mask).softmax(-1) @ v) > 0
