"""On the device: what is free by construction, and what the rules allow, change no bit."""

from __future__ import annotations

import pytest
import torch
from device_cases import (
    DTYPES,
    ORDER,
    Shape,
    chunk,
    last_rows,
    sequence,
    unequal,
    unequal_results,
    whole,
)

from kvparity_kernels.attention import api
from kvparity_kernels.linear import linear
from kvparity_kernels.logprob import logprob, naive
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.tiles import BASE, using

pytestmark = pytest.mark.gpu
LONG = 20_000  # keys: 79 splits
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@dtypes
def test_many_splits_are_merged_as_prefill_merges_them(dtype):
    shape = Shape()
    one = sequence(LONG, shape, dtype, 3)
    expected = tuple(x[-1:] for x in chunk(one, LONG - 3, LONG, shape))
    assert unequal_results(last_rows([one], shape), expected) == 0
    other = last_rows([one], shape, order=ReductionOrder(split=128))  # the control
    assert unequal_results(other, expected) > 0


@dtypes
def test_how_the_merge_is_cut_changes_no_bit(dtype, monkeypatch):
    shape = Shape()
    batch = [sequence(n, shape, dtype, n) for n in (1, 300, 2047, 2305)]
    expected = last_rows(batch, shape)
    for cut, warps in (
        ({"GB": 4, "CB": 64, "FLIGHT": 1}, 4),
        ({"GB": 2, "CB": 32, "FLIGHT": 4}, 2),
        ({"GB": 1, "CB": 16, "FLIGHT": 16}, 1),
    ):
        monkeypatch.setattr(api, "combining", lambda *_, cut=cut, warps=warps: (cut, warps))
        assert unequal_results(last_rows(batch, shape), expected) == 0, cut


@dtypes
def test_tiles_that_the_rules_allow_have_the_bits_of_the_base(dtype):
    shape = Shape()
    batch = [sequence(n, shape, dtype, n) for n in (1, 65, 300, 1025)]
    source = torch.Generator("cuda").manual_seed(1)
    x = torch.randn(1000, 512, generator=source, device="cuda").to(dtype)
    w = torch.randn(520, 512, generator=source, device="cuda").to(dtype)
    sizes = (1, 8, 16, 17, 64, 65, 1000)
    with using(BASE):
        attended = [whole(one, shape) for one in batch], last_rows(batch, shape)
        products = [linear(x[:n], w, order=ORDER) for n in sizes]
    for one, expected in zip(batch, attended[0], strict=True):
        assert unequal_results(whole(one, shape), expected) == 0
    assert unequal_results(last_rows(batch, shape), attended[1]) == 0
    for n, expected in zip(sizes, products, strict=True):
        assert unequal(linear(x[:n], w, order=ORDER), expected) == 0, n


@dtypes
def test_bands_of_tiles_cover_every_row_and_column(dtype):
    source = torch.Generator("cuda").manual_seed(2)
    x = torch.randn(1300, 96, generator=source, device="cuda").to(dtype)  # 21 tiles of rows
    for columns in (130, 256):  # with a mask and without
        w = torch.randn(columns, 96, generator=source, device="cuda").to(dtype)
        full = linear(x, w, order=ORDER)
        rows = torch.cat([linear(x[i : i + 50], w, order=ORDER) for i in range(0, 1300, 50)])
        assert unequal(full, rows) == 0
        assert unequal(full.flip(0), rows) > 0  # the control


@dtypes
@pytest.mark.parametrize("vocab", [4096, 4097, 151_936])
def test_a_log_probability_depends_on_its_row_alone(dtype, vocab):
    source = torch.Generator("cuda").manual_seed(vocab)
    logits = (torch.randn(64, vocab, generator=source, device="cuda") * 4).to(dtype)
    targets = torch.randint(vocab, (64,), generator=source, device="cuda")
    found = logprob(logits, targets, 0.7)
    for row in (0, 31, 63):
        one = slice(row, row + 1)
        assert unequal(logprob(logits[one], targets[one], 0.7), found[one]) == 0
    exact = naive.logprob(logits, targets, 0.7)
    assert (found - exact).abs().max() < 4e-5  # 2^-24 of logits up to 30, a few times
    assert (logprob(logits, (targets + 1) % vocab, 0.7) - exact).abs().max() > 4e-5
