"""Where one call is answered and its neighbour refused; masks at their edges; what runs where."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from kvparity_kernels import invariant
from kvparity_kernels.launch import record
from kvparity_kernels.overrides import NotInvariantError, attention, experts, mode, products
from kvparity_kernels.overrides.report import InvariantReport
from kvparity_kernels.overrides.rows import row_sum

aten = torch.ops.aten
INF = float("inf")
WHOLE = torch.arange(12).reshape(3, 4)
OFFS = torch.tensor([3])


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def nested(*rows: int) -> Tensor:
    return torch.nested.nested_tensor([draw(n, 4) for n in rows], layout=torch.jagged)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a complex product": (lambda: draw(2, 2).to(torch.complex64) @ draw(2, 2).cfloat(), "mm of"),
    "floats among whole numbers": (
        lambda: torch._foreach_add([WHOLE, WHOLE], [1, 1.5]), "_foreach_add.ScalarList is not known"
    ),
    "two results": (lambda: torch.frexp(draw(3)), "frexp.Tensor has no plain form"),
    "a product of all": (lambda: draw(3).prod(0, dtype=torch.int32), "prod.dim_int adds in"),
    "added where it is put": (
        lambda: draw(3).index_put((WHOLE[0, :1],), draw(1), accumulate=True), "index_put adds in"
    ),
    "all nested": (lambda: attention.sdpa(*[nested(2, 3)] * 3), "over nested tensors"),
    "one nested": (lambda: attention.sdpa(nested(2, 3), *draw(2, 2, 3, 4)), "over nested tensors"),
    "a batch of groups with a bias": (
        lambda: experts.grouped_mm(draw(2, 3, 4), draw(2, 4, 5), None, draw(2, 5)), "with a bias"
    ),
    "a batch of groups with ends": (
        lambda: experts.grouped_mm(draw(2, 3, 4), draw(2, 4, 5), OFFS), "of 3 and 3 dimensions is"
    ),
    "groups without ends": (
        lambda: experts.grouped_mm(draw(3, 4), draw(2, 4, 5)), "of 2 and 3 dimensions is"
    ),
    "one matrix for all groups": (
        lambda: experts.grouped_mm(draw(3, 4), draw(4, 5)), "of 2 and 2 dimensions is"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_answered_is_refused(name: str) -> None:
    call, says = REFUSED[name]
    with invariant(), pytest.raises(NotInvariantError, match=says):
        call()


def test_a_device_that_nobody_tried_is_refused() -> None:
    there: Any = SimpleNamespace(device=SimpleNamespace(type="mps"), dtype=torch.float32)
    fixed = mode.FixedOrder(InvariantReport(), strict=True, planted={})
    with pytest.raises(NotInvariantError, match=r"mm of torch\.float32 on .*mps"):
        fixed._override(aten.mm.default, "mm", (there, there), {}, [there, there])


LEFT: dict[str, Callable[[], Any]] = {
    "a sum of whole numbers": lambda: WHOLE.sum(dtype=torch.int64),
    "an answer that is no tensor": lambda: aten.is_same_size(WHOLE, WHOLE),
}


@pytest.mark.parametrize("name", LEFT)
def test_whole_numbers_are_torchs(name: str) -> None:
    wanted = LEFT[name]()
    with invariant() as report:
        assert LEFT[name]() == wanted
    assert report == InvariantReport()


def test_what_is_counted_has_the_name_of_its_form() -> None:
    with invariant(strict=False) as report:
        draw(4).cumsum(0)
        draw(4).var()
    assert report.passed == {"cumsum": 1, "var.correction": 1}


def test_only_what_looks_at_its_neighbours_is_laid_out_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bits show it only where torch has no MKL."""
    found = []
    monkeypatch.setattr(mode, "even", lambda func, a, k, alone: found.append(alone) or func(*a))
    with invariant():
        draw(3).exp(), draw(3).cos(), draw(3).sigmoid(), draw(3).tan()
    assert found == [False, True, False, True]


def test_attention_that_torch_makes_of_products_is_taken_apart() -> None:
    q, k, v = draw(3, 1, 2, 5, 16)
    with torch.inference_mode(), invariant() as report:
        found, _ = aten._scaled_dot_product_attention_math(q, k, v)
    assert report.overridden["bmm"] == 2
    torch.testing.assert_close(found, attention.sdpa(q, k, v))


def test_what_is_not_given_is_torchs_default() -> None:
    q, k, v = draw(2, 3, 4), draw(2, 5, 4, seed=1), draw(2, 5, 4, seed=2)
    wanted = torch.softmax(q.double() @ k.double().mT / 2, -1) @ v.double()
    a, b, c = q, v[:, :4], draw(2, 3, 4, seed=3)
    sums = c.double() + a.double() @ b.double()
    with invariant():
        for found in (
            attention.sdpa(q, k, v),
            attention.flash_for_cpu(q, k, v)[0],
            attention.flash(q, k, v)[0],
            attention.efficient(q, k, v, None, True)[0],
            attention.cudnn(q, k, v, None, True)[0],
        ):
            torch.testing.assert_close(found, wanted.float())
        for found in (torch.baddbmm(c, a, b), products.baddbmm(c, a, b)):
            torch.testing.assert_close(found, sums.float())
        torch.testing.assert_close(products.addmm(c[0], a[0], b[0]), sums[0].float())
        vector = products.addmv(c[0, :, 0], a[0], b[0, :, 0])
        torch.testing.assert_close(vector, sums[0, :, 0].float())
        none = products.mm(draw(3, 0).half(), draw(0, 5).half(), torch.float32)
        assert (none.dtype, none.shape) == (torch.float32, (3, 5))
    torch.testing.assert_close(row_sum(a[0], twin=True), a[0].sum(1))


def test_rows_of_single_numbers_are_added() -> None:
    x, index = draw(4), torch.tensor([2, 0, 2])
    wanted = x.clone()
    for place, row in enumerate(index.tolist()):
        wanted[row] = wanted[row] + place + 0.5
    assert same(experts.index_add(x, 0, index, torch.arange(3) + 0.5), wanted)


def test_on_the_cpu_no_kernel_is_launched() -> None:
    x = draw(2, 3, 4)
    with record() as log, invariant():
        attention.sdpa(x, x, x)
        products.mm(x[0], x[1].T), products.bmm(x, x.mT), products.linear(x, x[0])
        x.sum(0), x.mean(), x.softmax(-1), x.log_softmax(0)
    assert not log.counts


KEYS, ROWS = 45, 6
SEEN = torch.arange(KEYS) % 3 > 0  # gaps, so that the place of a key moves bits


def masked(value: float, dtype: torch.dtype, shown: float = 0.0) -> Tensor:
    """Attention in which a mask of ``dtype`` adds ``value`` to the scores of the keys in gaps,
    with all keys and with those outside of gaps alone."""
    q, k, v = draw(1, 2, ROWS, 16), draw(1, 2, KEYS, 16, seed=1), draw(1, 2, KEYS, 16, seed=2)
    mask = torch.zeros(ROWS, KEYS, dtype=dtype)
    mask[::2] = torch.where(SEEN, shown, value).to(dtype)
    mask[1::2] = torch.where(SEEN, 0.0, -INF).to(dtype)
    out = attention.sdpa(q, k, v, mask)
    few = attention.sdpa(q, k[:, :, SEEN], v[:, :, SEEN], mask[:, SEEN])
    return torch.stack([out, few])


FLOATS = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("part", [1.0, 0.5])
def test_a_number_that_hides_a_key_is_as_if_it_were_not_there(
    part: float, dtype: torch.dtype
) -> None:
    whole, few = masked(torch.finfo(dtype).min * part, dtype)
    assert same(whole, few)


def test_a_bias_leaves_a_key_in_its_place() -> None:
    """However large: the bits are those of a bias that is large enough for a weight of 0."""
    found = [masked(bias, torch.float32) for bias in (-1e4, torch.finfo(torch.float32).min * 0.4)]
    assert same(found[0][0], found[1][0])
    assert not same(found[0][0], found[0][1])  # so the place is seen


def test_a_row_whose_keys_are_all_hidden_sees_those_that_are_least_so() -> None:
    """In float16, where the least number leaves the scores their differences."""
    whole, few = masked(-INF, torch.float16, torch.finfo(torch.float16).min)
    assert same(whole, few)
