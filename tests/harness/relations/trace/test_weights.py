"""What is said of a row's weights, against plain sums over a few keys, one head after the other."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from kvparity.relations.trace.bounds import ULP, Terms, out_bound, reduction, sum_bound
from kvparity.relations.trace.weights import Weights, _flat, _uniform, weigh
from kvparity.subjects.events import Attended

HEADS, KV_HEADS, DIM, KEYS = 4, 2, 3, 5
FIRST = 7


@dataclass(frozen=True)
class Row:
    """One row in plain numbers: by head, by key."""

    scores: list[list[float]]
    weights: list[list[float]]
    products: list[list[float]]
    lse: list[float]
    out: list[list[float]]


def plain(event: Attended) -> Row:
    """The row in Python's own floats."""
    q, k, v = (x.double().tolist() for x in (event.q, event.k, event.v))
    found = Row([], [], [], [], [])
    for head in range(len(q)):
        store = head // (len(q) // len(k[0]))
        scores, products = [], []
        for key in k:
            pairs = list(zip(q[head], key[store], strict=True))
            score = event.scale * math.fsum(a * b for a, b in pairs)
            if event.softcap:
                score = event.softcap * math.tanh(score / event.softcap)
            scores.append(score)
            products.append(abs(event.scale) * math.fsum(abs(a * b) for a, b in pairs))
        every = scores + ([] if event.sinks is None else [float(event.sinks[head])])
        lse = math.log(math.fsum(math.exp(score) for score in every))
        weights = [math.exp(score - lse) for score in scores]
        found.scores.append(scores)
        found.products.append(products)
        found.lse.append(lse)
        found.weights.append(weights)
        found.out.append(
            [math.fsum(w * value[store][i] for w, value in zip(weights, v, strict=True))
             for i in range(len(q[0]))]
        )  # fmt: skip
    return found


def event(seed: int = 0, **more: Any) -> Attended:
    """A row whose result and log-sum-exp are those of its scores, exactly."""
    random = torch.Generator().manual_seed(seed)
    q, k, v = (
        torch.randn(*shape, DIM, generator=random)
        for shape in ((HEADS,), (KEYS, KV_HEADS), (KEYS, KV_HEADS))
    )
    whole: dict[str, Any] = {"scale": 0.7, "softcap": 0.0, "sinks": None} | more
    at = FIRST + KEYS - 1
    blank = torch.zeros(HEADS, DIM), torch.zeros(HEADS)
    row = Attended(0, 0, at, at, at + 1, FIRST, q, k, v, *blank, **whole)
    honest = plain(row)
    out, lse = (torch.tensor(x, dtype=torch.float64) for x in (honest.out, honest.lse))
    return replace(row, out=out, lse=lse)


def said(row: Attended) -> Weights:
    found = weigh(row, (4, 2))
    assert found is not None
    return found


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "another scale": {"scale": 3.0},
    "a negative scale": {"scale": -0.5},
    "a cut": {"softcap": 0.8},
    "a sink": {"sinks": torch.tensor([0.5, -1.0, 2.0, 0.0])},
    "a cut and a sink": {"softcap": 1.5, "sinks": torch.tensor([2.0, 0.1, -3.0, 1.0])},
}


@pytest.mark.parametrize("name", KINDS)
def test_a_row_is_weighed_as_by_hand(name: str) -> None:
    row = event(**KINDS[name])
    by_hand = plain(row)
    # One head's log-sum-exp and one element are off, each by a little.
    lse, out = row.lse.clone(), row.out.clone()  # type: ignore[union-attr]
    lse[2] += 1e-3
    out[1, 2] -= 0.25
    found = said(replace(row, lse=lse, out=out))
    terms = Terms(
        *(torch.tensor(x, dtype=torch.float64)
          for x in (by_hand.scores, by_hand.weights, by_hand.products, by_hand.lse)),
        DIM, row.softcap,
    )  # fmt: skip
    way = reduction(KEYS, (4, 2))
    assert found.deviation == pytest.approx(-math.expm1(-1e-3) / ULP, rel=1e-9)
    assert found.bound == pytest.approx(float(sum_bound(terms, way)[2]) / ULP, rel=1e-9)
    assert not found.recomputed
    values = row.v.double().transpose(0, 1).repeat_interleave(2, 0)
    allowed = out_bound(terms, values, way, dtype=torch.float32, closed=False)
    assert found.out_error == pytest.approx(0.25, rel=1e-9)
    assert found.out_ratio == pytest.approx(0.25 / float(allowed[1, 2]), rel=1e-6)
    weights = by_hand.weights
    keys = [[w / math.fsum(head) for w in head] for head in weights]  # without the sink
    entropy = [-math.fsum(w * math.log(w) for w in head) for head in keys]
    assert found.entropy == pytest.approx(math.fsum(entropy) / HEADS, rel=1e-9)
    assert found.share == pytest.approx(found.entropy / math.log(KEYS), rel=1e-12)
    largest = max(w for head in weights for w in head)
    assert found.largest == pytest.approx(largest, rel=1e-12)
    assert found.largest_at == FIRST + next(h.index(largest) for h in weights if largest in h)
    assert (found.uniform, found.flat, found.telling) == ((), (), HEADS)


def test_without_a_log_sum_exp_the_rows_own_is_taken_and_less_is_asked_of_the_result() -> None:
    row = event()
    open_, closed = said(row), said(replace(row, lse=None))
    assert closed.recomputed
    assert closed.deviation < 4
    off = row.out.clone()
    off[0, 0] += 1e-5
    ratios = [said(replace(row, out=off, lse=lse)).out_ratio for lse in (row.lse, None)]
    assert ratios[0] > 1 > ratios[1] > 0.5
    assert open_.out_error < 1e-12


def test_one_key_has_no_share_and_the_whole_weight() -> None:
    row = event()
    found = said(replace(row, k=row.k[:1], v=row.v[:1], out=row.v[0].repeat_interleave(2, 0)))
    assert (found.share, found.largest, found.largest_at) == (None, 1.0, FIRST)
    assert (found.entropy, found.out_error, found.telling) == (0.0, 0.0, 0)


def test_two_keys_share_log_2_and_values_that_are_alike_show_no_mean() -> None:
    row = event()
    two = said(replace(row, k=row.k[:2], v=row.v[:2]))
    assert two.share == pytest.approx(two.entropy / math.log(2), rel=1e-12)
    alike = said(replace(row, v=row.v[:1].expand_as(row.v)))
    assert (alike.uniform, alike.telling) == ((), HEADS)


def test_the_head_nearest_to_its_own_bound_is_told_and_nan_before_all() -> None:
    row = event()
    lse = row.lse.clone()  # type: ignore[union-attr]
    # Head 3's log-sum-exp is so large that its bound is wider: it is off more, and still nearer.
    lse[1] += 4e-4
    lse[3] -= 4e-4
    steep = row.q.clone()
    steep[3] *= 40
    other = replace(row, q=steep)
    honest = torch.tensor(plain(other).lse, dtype=torch.float64)
    found = said(replace(other, lse=honest + (lse - row.lse), out=other.out))  # type: ignore[operator]
    bound = said(replace(row, lse=lse)).bound
    assert found.deviation == pytest.approx(-math.expm1(-4e-4) / ULP, rel=1e-6)
    assert found.bound < 2 * bound
    lse[0] = torch.nan
    assert math.isnan(said(replace(row, lse=lse)).deviation)
    off = row.out.clone()
    off[0, 1], off[3, 2] = torch.nan, 1e9
    assert (
        said(replace(row, out=off)).out_error == said(replace(row, out=off)).out_ratio == math.inf
    )


def test_keys_count_as_the_kernel_loads_them_in_the_execution_format() -> None:
    row = event()
    low = replace(row, q=row.q.bfloat16(), k=row.k.bfloat16(), v=row.v.bfloat16())
    by_hand = plain(low)
    exact = replace(
        row, q=low.q, out=torch.tensor(by_hand.out, dtype=torch.float64),
        lse=torch.tensor(by_hand.lse, dtype=torch.float64),
    )  # fmt: skip
    found = said(exact)  # keys in float32, a query in bfloat16
    assert found.deviation < 1
    assert found.out_error < 1e-12


# of one head: equal weights make the mean (2, 0); what the scores ask for is given

MEAN = (2.0, 0.0)
ALLOWED = 0.125
UNIFORM: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[bool, bool]]] = {
    # wanted, out: (attends uniformly, could show it)
    "the mean where another is asked for": ((3.0, 5.0), MEAN, (True, True)),
    "one element tells": ((2.0, 0.5), MEAN, (True, True)),
    "the other element tells": ((1.0, 0.0), MEAN, (True, True)),
    "as near as rounding carries": ((2.0, 0.5), (2.125, -0.125), (True, True)),
    "one element is farther": ((2.0, 0.5), (2.25, 0.0), (False, True)),
    "the other element is farther": ((2.0, 0.5), (2.0, 0.25), (False, True)),
    "what is asked for": ((2.0, 0.5), (2.0, 0.5), (False, True)),
    "just more than twice what is allowed": ((2.0, 0.2501), MEAN, (True, True)),
    "twice what is allowed": ((2.0, 0.25), MEAN, (False, False)),
    "less than three times what is allowed": ((2.0, -0.36), MEAN, (True, True)),
    "the mean is asked for": (MEAN, MEAN, (False, False)),
    "minus the mean": ((3.0, 5.0), (-2.0, 0.0), (False, True)),
}


@pytest.mark.parametrize("share", [1.0, 0.5], ids=["alone", "beside a sink"])
@pytest.mark.parametrize("name", UNIFORM)
def test_the_plain_mean_is_told_from_the_weighted_one(name: str, share: float) -> None:
    wanted, out, expected = UNIFORM[name]
    values = torch.tensor([[[1.0, 4.0], [3.0, -4.0]]], dtype=torch.float64) / share
    weights = torch.tensor([[0.75, 0.25]], dtype=torch.float64) * share
    blank = torch.zeros(1, 2, dtype=torch.float64)
    terms = Terms(blank, weights, blank, blank[:, 0], head_dim=2, softcap=0.0)
    given = [torch.tensor([x], dtype=torch.float64) for x in (out, wanted)]
    allowed = torch.full((1, 2), ALLOWED, dtype=torch.float64)
    near, tells = _uniform(*given, values, terms, allowed)
    assert (bool(near), bool(tells)) == expected


def deficit(scores: Tensor) -> float:
    """log(keys) less the entropy, by the definition."""
    weights = [math.exp(s) for s in scores.tolist()]
    total = math.fsum(weights)
    return math.log(len(weights)) + math.fsum(w / total * math.log(w / total) for w in weights)


@pytest.mark.parametrize("softcap", [0.0, 0.3])
def test_flat_is_what_is_flatter_than_the_smallest_scale_would_make_it(softcap: float) -> None:
    dim = 4
    dots = torch.tensor([[4.0, -2.0, 1.0]], dtype=torch.float64)
    least = dots / 8  # 4 ** 1.5
    if softcap:
        least = softcap * torch.tanh(least / softcap)
    for factor, wanted in ((0.5, True), (0.99, True), (1.0, False), (1.01, False), (3.0, False)):
        scores = factor * least
        assert (deficit(scores[0]) < deficit(least[0])) == wanted
        flat, tells = _flat(dots, torch.softmax(scores, 1), softcap, dim)
        assert (bool(flat), bool(tells)) == (wanted, True), factor
    # Products that are alike, or all but alike, ask for no other weights.
    # 1e-12 nats are told, for three keys where one product is some 3e-5 off; a third is not.
    for near, told in ((0.0, False), (1e-7, False), (1.3e-5, False), (4e-5, True)):
        alike = torch.tensor([[0.0, near, 0.0]], dtype=torch.float64)
        flat, tells = _flat(alike, torch.softmax(alike * 0, 1), softcap, dim)
        assert (bool(flat), bool(tells)) == (told, told), near
