"""The bounds hold for honest kernels at any number of keys, and a missing key breaks them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kvparity.relations.trace.bounds import (
    ULP,
    Reduction,
    Terms,
    U,
    out_bound,
    reduction,
    sum_bound,
)
from kvparity.relations.trace.weights import Weights, weigh
from kvparity.subjects.events import Attended
from kvparity_kernels.attention import decode
from kvparity_kernels.order import ReductionOrder

ORDER = ReductionOrder(split=256, tile=64, block_m=16)
CUT = (ORDER.split, ORDER.tile)
HEADS, KV_HEADS, DIM = 4, 2, 32
SCALE = DIM**-0.5


def draw(keys: int, dtype: torch.dtype, size: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(keys)
    q, k, v = (
        torch.randn(n, heads, DIM, generator=random)
        for n, heads in ((1, HEADS), (keys, KV_HEADS), (keys, KV_HEADS))
    )
    return (q * size).to(dtype), k.to(dtype), v.to(dtype)


def event(q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor | None) -> Attended:
    n = len(k)
    return Attended(0, 0, n - 1, n - 1, n, 0, q[0], k, v, out[0], lse, SCALE, decode=True)


def kernel(q: Tensor, k: Tensor, v: Tensor, keys: list[int] | None = None) -> tuple[Tensor, Tensor]:
    """This project's decode kernel over ``keys`` of the given ones (None: all)."""
    if keys is not None:
        k, v = k[keys], v[keys]
    lens = torch.tensor([len(k)], dtype=torch.int32)
    out, lse = decode(q, k[None], v[None], kv_lens=lens, scale=SCALE, order=ORDER)
    return out, lse[0]


def weighed(
    q: Tensor, k: Tensor, v: Tensor, found: tuple[Tensor, Tensor], order: tuple[int, int] | None
) -> Weights:
    result = weigh(event(q, k, v, *found), order)
    assert result is not None
    return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("keys", [1, 2, 63, 64, 65, 256, 257, 1000, 2000])
def test_an_honest_kernel_stays_within_both_bounds(keys: int, dtype: torch.dtype) -> None:
    q, k, v = draw(keys, dtype)
    found = kernel(q, k, v)
    for order in (CUT, None):
        result = weighed(q, k, v, found, order)
        assert result.deviation <= result.bound
        assert result.out_ratio <= 1
        assert not result.uniform
        assert not result.flat
        assert result.entropy <= math.log(keys) + 1e-12


@pytest.mark.parametrize("size", [1e-3, 8.0, 100.0])
def test_an_honest_kernel_stays_within_the_bounds_for_flat_and_for_steep_scores(
    size: float,
) -> None:
    q, k, v = draw(300, torch.float32, size)
    result = weighed(q, k, v, kernel(q, k, v), CUT)
    assert result.deviation <= result.bound
    assert result.out_ratio <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("keys", [2, 65, 1000, 2000])
def test_a_missing_key_breaks_the_bound(keys: int, dtype: torch.dtype) -> None:
    q, k, v = draw(keys, dtype)
    for gone in (0, keys - 1):
        found = kernel(q, k, v, [i for i in range(keys) if i != gone])
        for order in (CUT, None):
            result = weighed(q, k, v, found, order)
            assert result.deviation > 2 * result.bound, (gone, order)


@pytest.mark.parametrize("keys", [2, 65, 300])
def test_a_missing_key_shows_in_the_result_where_no_log_sum_exp_is_returned(keys: int) -> None:
    q, k, v = draw(keys, torch.float32)
    out, _ = kernel(q, k, v)
    assert weighed(q, k, v, (out, None), None).out_ratio <= 1
    out, _ = kernel(q, k, v, list(range(1, keys)))
    assert weighed(q, k, v, (out, None), None).out_ratio > 1


def test_a_kernel_that_forgets_the_scale_is_uniform_or_steep_and_both_show() -> None:
    q, k, v = draw(40, torch.bfloat16)
    flat = weighed(q, k, v, kernel(q * 0, k, v), CUT)
    assert flat.uniform == (0, 1, 2, 3)
    assert flat.deviation > flat.bound
    steep = weighed(q, k, v, kernel(q * 4, k, v), CUT)
    assert not steep.uniform
    assert steep.deviation > steep.bound


def test_scores_that_are_alike_are_no_defect() -> None:
    q, k, v = draw(40, torch.float32)
    q = q * 0
    result = weighed(q, k, v, kernel(q, k, v), CUT)
    assert result.telling == 0
    assert not result.flat
    assert result.share == pytest.approx(1.0, abs=1e-12)
    assert result.deviation <= result.bound


def test_the_formula_by_hand() -> None:
    one = torch.ones(1, 1, dtype=torch.float64)
    terms = Terms(2 * one, one, 3 * one, 2 * one[:, 0], head_dim=8, softcap=0.0)
    # products 20 * 3, exp2 4, 2 additions, 1 rescaling of 5, log2 4 and 3 |lse|
    expected = math.expm1(U * (60 + 4 + 2 + 5 + 4 + 6))
    assert float(sum_bound(terms, Reduction(2, 1))) == pytest.approx(expected, rel=1e-12)
    assert ULP == 2 * U


def test_every_term_of_the_sum_counts_by_hand() -> None:
    terms = Terms(
        torch.tensor([[1.0, 3.0]]).double(), torch.tensor([[0.25, 0.5]]).double(),
        torch.tensor([[3.0, 5.0]]).double(), torch.tensor([-7.0]).double(),
        head_dim=8, softcap=0.5,
    )  # fmt: skip
    # Weighed: products 20 * S and the drop. Then 16 * softcap, exp2 4, 6 additions, 2 rescalings.
    weighed = 0.25 * (20 * 3 + 2) + 0.5 * (20 * 5 + 0)
    fixed = 8 + 4 + 6 + 5 * 2 + 4 * math.log(3) + 3 * 7
    expected = math.expm1(U * (weighed + fixed))
    assert float(sum_bound(terms, Reduction(6, 2))) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_values_that_are_zero_the_smallest_number_is_allowed(dtype: torch.dtype) -> None:
    one = torch.ones(1, 1, dtype=torch.float64)
    terms = Terms(2 * one, one, 3 * one, 2 * one[:, 0], head_dim=8, softcap=0.0)
    found = out_bound(terms, torch.zeros(1, 1, 2), Reduction(2, 1), dtype=dtype, closed=False)
    assert found.tolist() == [[torch.finfo(dtype).tiny] * 2]


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_formula_of_the_result_by_hand(dtype: torch.dtype, closed: bool) -> None:
    one = torch.ones(1, 1, dtype=torch.float64)
    pair = torch.tensor([[0.25, 0.75]], dtype=torch.float64)
    terms = Terms(
        torch.tensor([[1.0, 3.0]]).double(), pair, torch.tensor([[3.0, 5.0]]).double(), one[:, 0],
        head_dim=8, softcap=0.5,
    )  # fmt: skip
    values = torch.tensor([[[-2.0], [4.0]]], dtype=torch.float64)
    u = torch.finfo(dtype).eps / 2
    # A score: products 20 * S, its drop under the highest, and 16 * softcap.
    scores = [U * (20 * 3 + 2 + 8), U * (20 * 5 + 0 + 8)]
    if closed:  # eight roundings of the score, its drop, the cap and 1
        scores = [scores[0] + 8 * u * (1 + 2 + 1.5), scores[1] + 8 * u * (3 + 0 + 1.5)]
    total = 0.25 * scores[0] + 0.75 * scores[1]
    # The weight rounded once; 2 additions of 4, 1 rescaling of 10.
    relative = [math.expm1(each + u + U * (8 + 8 + 10) + total) for each in scores]
    tiny = 2.0**-25 if dtype == torch.float16 else 0.0
    spread = (0.25 * relative[0] + tiny) * 2 + (0.75 * relative[1] + tiny) * 4
    wanted = spread + 2 * u * (0.25 * 2 + 0.75 * 4)
    found = out_bound(terms, values, Reduction(2, 1), dtype=dtype, closed=closed)
    assert float(found) == pytest.approx(wanted + torch.finfo(dtype).tiny, rel=1e-9)


def test_how_many_roundings_a_term_passes() -> None:
    assert reduction(2000, (256, 64)) == Reduction(64 + 4 + 8 + 1, 4 + 8 + 1)
    assert reduction(10, (256, 64)) == Reduction(10 + 4 + 1 + 1, 4 + 1 + 1)
    assert reduction(2000, None) == Reduction(2000, 126)


@pytest.mark.parametrize("shift", [-3.0, 3.0])
@pytest.mark.parametrize("head", range(HEADS))
def test_the_head_that_is_off_most_is_told_on_either_side_of_one(head: int, shift: float) -> None:
    q, k, v = draw(40, torch.float32)
    out, lse = kernel(q, k, v)
    near = weighed(q, k, v, (out, lse), CUT)
    lse[head] += shift * near.bound * ULP
    found = weighed(q, k, v, (out, lse), CUT)
    assert 2 * found.bound < found.deviation < 4 * found.bound
    assert found.out_ratio == near.out_ratio
    out[0, head, -1] += shift * near.out_error / near.out_ratio
    assert weighed(q, k, v, (out, lse), CUT).out_ratio > 1


def test_a_cut_and_a_sink_belong_to_the_sum() -> None:
    q, k, v = draw(30, torch.float32)
    sinks = torch.linspace(-1, 1, HEADS)
    scores = torch.einsum("hd,nhd->hn", q[0].double(), k.double().repeat_interleave(2, 1)) * SCALE
    scores = 5 * torch.tanh(scores / 5)
    joined = torch.cat([scores, sinks[:, None].double()], 1)
    lse = torch.logsumexp(joined, 1).float()
    weights = torch.softmax(joined, 1)[:, :-1]
    out = torch.einsum("hn,nhd->hd", weights, v.double().repeat_interleave(2, 1)).float()
    whole = Attended(0, 0, 29, 29, 30, 0, q[0], k, v, out, lse, SCALE, 5.0, sinks)
    result = weigh(whole, None)
    assert result is not None
    assert result.deviation <= result.bound
    assert result.out_ratio <= 1
    for change in ({"softcap": 0.0}, {"sinks": None}):
        other = weigh(Attended(**{**vars(whole), **change}), None)
        assert other is not None
        assert other.deviation > other.bound
        assert other.out_ratio > 1


def test_a_row_without_keys_has_no_weights() -> None:
    q, k, v = draw(2, torch.float32)
    out = torch.zeros(1, HEADS, DIM)
    assert weigh(event(q, k[:0], v[:0], out, None), None) is None
