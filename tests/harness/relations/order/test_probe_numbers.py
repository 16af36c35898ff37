"""The numbers of probes: what a format holds, what a mask swallows, what is counted."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from order_pairs import pair, subject

from kvparity.relations.order import NotMeasured, ProbeLied, SumOracle
from kvparity.relations.order.encoding import code_range, read_counts, split_log2, value_range
from kvparity.relations.order.stats import Stats
from kvparity.relations.order.storing import alphabet, draw, exactly
from kvparity_kernels.store import StoreFormat, decode, encode

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
FLOATS = (F32, F16, BF16)
STORES = ("fp8_e4m3(tensor)", "fp8_e4m3(head)", "fp8_e5m2(tensor)", "int8(4)", "int4(8)")


# ranges

RANGES = list(itertools.product([*FLOATS, *map(StoreFormat.parse, STORES)], FLOATS))
SIZES = (2, 3, 5, 49, 50, 51, 127, 128, 129, 400, 401, 1000, 2047, 2048)


def range_of(stored, out, n):
    return (value_range if isinstance(stored, torch.dtype) else code_range)(stored, out, n)


def rounded(x, dtype):
    return torch.tensor(x, dtype=torch.float64).to(dtype).double().numpy()


@pytest.mark.parametrize(("stored", "out"), RANGES, ids=lambda x: str(x).removeprefix("torch."))
def test_a_mask_swallows_all_units_and_every_count_survives_the_result(stored, out):
    """``n`` equal weights, or, where units weigh less, a pair of weight 1 among them."""
    for n in SIZES:
        found = range_of(stored, out, n)
        assert (found.gap > 0) == (getattr(stored, "name", "") == "fp8_e4m3")
        assert 1 <= found.units <= n
        assert found.mask > found.unit > 0
        for x in (found.mask, found.unit):
            assert math.frexp(x)[0] == 0.5  # times any weight it is exact
        # Beside a mask all units vanish, from above and below, where floats lie twice as dense.
        units = np.float32(found.unit) * np.arange(found.units + 1, dtype=np.float32)
        for mask in (np.float32(found.mask), np.float32(-found.mask)):
            assert (mask + units == mask).all()
        # A count is read within a quarter off whatever the mean is rounded to.
        total = n if not found.gap else 2 + (n - 2) * 2.0**-found.gap
        counts = np.arange(found.units + 1)
        read = rounded(counts * (found.unit / total), out) * (total / found.unit)
        assert np.abs(read - counts).max() <= 0.25
        # V holds both numbers, and a unit of a lighter key, which is larger.
        held = torch.tensor([found.mask, -found.mask, found.unit * 2.0**found.gap])
        if isinstance(stored, torch.dtype):
            assert torch.equal(held.to(stored).float(), held)
        else:
            x = (
                torch.zeros(1, 1, 1, 8) + held.repeat_interleave(8).view(3, 1, 1, 8)
                if stored.dynamic
                else held.view(1, 3, 1, 1)
            )
            exactly(x, stored, out)
        # What is smaller than it needs to be makes more probes: a factor of 8 at most.
        assert (
            found.units == n
            or found.units >= 50
            or 8 * found.units * found.unit * 2.0**25 > found.mask
        )


def test_units_of_fp8_e4m3_weigh_no_less_than_its_codes_ask_for():
    format = StoreFormat.parse("fp8_e4m3(head)")
    for out in FLOATS:
        found = code_range(format, out, 20)
        for gap, fits in ((found.gap, True), (found.gap - 1, False)):
            held = torch.tensor([found.mask, found.unit * 2.0**gap]).view(1, 2, 1, 1)
            if fits:
                exactly(held, format, out)
                continue
            with pytest.raises(NotMeasured):
                exactly(held, format, out)


@pytest.mark.parametrize(
    ("stored", "n", "error"),
    [(F16, 2049, ValueError), ("int8(4)", 2049, ValueError), ("fp8_e5m2(head)", 2049, NotMeasured)],
    ids=str,
)
def test_float16_results_that_have_no_room_for_a_unit_are_told(stored, n, error):
    stored = StoreFormat.parse(stored) if isinstance(stored, str) else stored
    for size in (n, 4 * n):
        with pytest.raises(error, match=f"no room to count {size} keys"):
            range_of(stored, F16, size)
    assert range_of(stored, F16, n - 1).units == 1
    assert range_of(stored, F32 if isinstance(stored, StoreFormat) else BF16, n).units > 1


# read-offs


@pytest.mark.parametrize("values", [[0.0], [4.0], [-0.25, 4.25], [2.75, 0.2, 3.8]], ids=str)
def test_what_is_within_a_quarter_of_a_count_is_that_count(values):
    assert read_counts(torch.tensor(values), "x", 4).tolist() == [round(x) for x in values]


@pytest.mark.parametrize(
    "bad", [2.251, 2.749, 2.5, -0.3, -1.0, 5.0, 4.3, 1e30, math.nan, math.inf, -math.inf], ids=str
)
def test_what_is_no_count_is_refused_and_shown(bad):
    for values in ([bad], [1.0, bad, 3.0]):
        with pytest.raises(ProbeLied, match=f"x: 1 of {len(values)} readings") as told:
            read_counts(torch.tensor(values), "x", 4)
        assert str(told.value).endswith(f"such as {bad:.6g}")


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_factors_of_a_weight_are_of_the_dtype_and_leave_less_and_less(dtype):
    least = float(torch.finfo(dtype).tiny * torch.finfo(dtype).eps)  # of all its numbers
    for scale in (1.0, 0.125, 0.3, 7.0):
        for parts in (1, 2, 3):
            found = split_log2(scale, dtype, parts)
            assert len(found) == parts
            assert rounded(found, dtype).tolist() == found
            rest = abs(math.log(2) / scale - sum(found))
            assert rest <= math.log(2) / scale * float(torch.finfo(dtype).eps) ** parts + least


# sums


def test_rows_hold_units_and_a_pair_of_masks_and_go_in_batches():
    seen = []

    def total(x):
        seen.append(x.clone())
        return x.sum(1)

    oracle = SumOracle(total, 6, mask=512.0, unit=0.5, dtype=BF16, batch=3)
    pairs = np.array([[0, 1], [4, 2], [5, 0], [1, 3], [2, 5], [3, 4], [0, 5]])
    found = oracle(pairs)
    assert oracle.launches == len(seen) == 3
    assert [x.shape for x in seen] == [(3, 6), (3, 6), (1, 6)]
    rows = torch.cat(seen)
    assert rows.dtype == BF16
    assert found.shape == (7,)
    for row, (i, j) in zip(rows.tolist(), pairs, strict=True):
        expected = [0.5] * 6
        expected[i], expected[j] = 512.0, -512.0
        assert row == expected


def test_what_survives_is_counted_in_units():
    for unit in (1.0, 0.25, 8.0):
        oracle = SumOracle(lambda x, unit=unit: x[:, 3] + 2 * unit, 6, unit=unit)
        assert oracle(np.array([[0, 1], [1, 2]])).tolist() == [3, 3]  # 6 - (1 + 2)
    with pytest.raises(ProbeLied, match="sum: 1 of 1"):
        SumOracle(lambda x: x[:, 3] + 0.4, 6)(np.array([[0, 1]]))


# costs


def test_costs_add_up_and_are_told_in_json():
    total = Stats(1, 2, 3, 0.25) + Stats(10, 20, 30, 0.12343)
    assert total == Stats(11, 22, 33, 0.37343)
    assert total.json() == {"probes": 11, "launches": 22, "rounds": 33, "seconds": 0.3734}
    assert Stats() + total == total
    assert Stats().json() == {"probes": 0, "launches": 0, "rounds": 0, "seconds": 0.0}


# codes


def stored_as(text):
    return StoreFormat.parse(text)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("out", FLOATS, ids=str)
def test_numbers_of_a_probe_are_held_exactly_with_powers_of_two(store, out):
    """As large as the format can: the largest number becomes a code of the highest binade."""
    format, rng = stored_as(store), torch.Generator().manual_seed(0)
    x = alphabet((2, 3, 2, 16), format, rng)
    x *= torch.where(torch.rand(x.shape, generator=rng) < 0.5, -1.0, 1.0)
    for power in (-9, 0, 5):
        if format.dynamic:  # scales of their own for each token, head and group
            powers = torch.randint(-4, 5, (2, 3, 2, 16 // format.group), generator=rng)
            y = x * torch.exp2(powers.float() + power).repeat_interleave(format.group, 3)
            y[0, 1, 1] = 0.0
        else:
            y = x * 2.0**power
        codes, scales = exactly(y, format, out)
        assert codes.shape == (2, 3, 2, format.storage_width(16))
        assert codes.dtype == format.storage_dtype
        assert scales.dtype == F32
        assert scales.shape == ((2,) if format.static else (2, 3, 2, 16 // format.group))
        assert scales.is_contiguous()
        assert (torch.frexp(scales)[0] == 0.5).all()
        flat = scales if format.static else scales.flatten(0, 1)
        read = decode(codes.flatten(0, 1), flat, format, F32).view(y.shape)
        assert torch.equal(read, y)
        every = torch.arange(256, dtype=torch.uint8).view(format.storage_dtype)
        if format.static:
            largest = every.float().nan_to_num(0.0, 0.0, 0.0).max()
            tops = (y.abs().amax() / scales).flatten()
        else:
            largest = {"int8": 127, "int4": 7}[format.name]
            tops = (y.view(2, 3, 2, -1, format.group).abs().amax(4) / scales).flatten()
            tops = tops[tops > 0]
        binade = 2.0 ** math.floor(math.log2(largest))
        assert ((binade <= tops) & (tops < 2 * binade)).all()


@pytest.mark.parametrize("store", STORES)
def test_what_codes_do_not_hold_is_not_measured(store):
    format = stored_as(store)
    x = torch.ones(1, 2, 1, 8)
    exactly(x, format, F32)
    x[0, 1, 0, 3] = 1 + 2.0**-9
    with pytest.raises(NotMeasured, match="does not hold the numbers of this probe exactly"):
        exactly(x, format, F32)


def test_what_the_result_s_dtype_does_not_hold_is_not_measured():
    """65536 is a code times a scale, and no float16."""
    x = torch.full((1, 1, 1, 8), 2.0**16)
    for store in STORES:
        exactly(x, stored_as(store), BF16)
        with pytest.raises(NotMeasured):
            exactly(x, stored_as(store), F16)


@pytest.mark.parametrize("store", STORES)
def test_random_numbers_are_all_those_of_the_largest_binade(store):
    format = stored_as(store)
    found = alphabet((50, 4, 16), format, torch.Generator().manual_seed(1))
    assert found.shape == (50, 4, 16)
    if format.static:
        codes = torch.arange(256, dtype=torch.uint8).view(format.storage_dtype).float()
        every = {float(x) for x in codes if x > 0 and torch.isfinite(x)}
    else:
        every = {float(x) for x in range(1, 128 if format.name == "int8" else 8)}
    top = 2.0 ** math.floor(math.log2(max(every)))
    assert {float(x) * top for x in found.flatten()} == {x for x in every if x >= top}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("part", ["k", "v"])
def test_random_calls_store_as_a_writer_does(store, part):
    which = subject(pair(), BF16, (4, 2, 16), store=store)
    x = torch.randn(2, 3, 2, 16, generator=torch.Generator().manual_seed(0))
    codes, scales = draw(x, which, part)
    static = which.static_scale(part)
    for sequence in range(2):
        own, beside = encode(x[sequence].to(BF16), which.store, static)
        assert torch.equal(codes[sequence].view(torch.uint8), own.view(torch.uint8))
        expected = static if beside is None else beside
        assert torch.equal(scales if beside is None else scales[sequence], expected)
    assert not (torch.frexp(scales)[0] == 0.5).all()
