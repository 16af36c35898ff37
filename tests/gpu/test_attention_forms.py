"""On the device: heads, batches, pages, places and neighbours do not change a row's bits."""

from __future__ import annotations

import pytest
import torch
from device_cases import (
    BATCHES,
    DTYPES,
    EDGES,
    FORMS,
    PAGES,
    Shape,
    chunk,
    expected_last,
    last_rows,
    sequence,
    unequal,
    unequal_results,
    whole,
)

from kvparity_kernels.order import ReductionOrder

pytestmark = pytest.mark.gpu
SHAPE = Shape()


@pytest.mark.parametrize(
    ("shape", "dtype"),
    FORMS,
    ids=lambda x: f"{x.dim}x{x.group}" if isinstance(x, Shape) else str(x),
)
def test_decode_and_chunks_have_the_bits_of_prefill(shape, dtype):
    data = [sequence(n, shape, dtype, n) for n in EDGES]
    expected = expected_last(data, shape)
    assert unequal_results(last_rows(data, shape), expected) == 0
    longest = data[-1]
    out, lse = whole(longest, shape)
    for start, stop in ((0, 1), (1, 8), (8, 200), (200, 321), (321, 513)):
        found = chunk(longest, start, stop, shape)
        assert unequal_results(found, (out[start:stop], lse[start:stop])) == 0, (start, stop)
    # The control: this comparison sees decode cut otherwise.
    other = last_rows(data, shape, order=ReductionOrder(split=128, tile=64))
    assert unequal_results(other, expected) > 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_ragged_batches_up_to_256(dtype):
    lengths = [EDGES[i % len(EDGES)] + i // len(EDGES) for i in range(max(BATCHES))]
    data = [sequence(n, SHAPE, dtype, seed) for seed, n in enumerate(lengths)]
    out, lse = expected_last(data, SHAPE)
    for batch in BATCHES:
        found = last_rows(data[:batch], SHAPE)
        assert unequal_results(found, (out[:batch], lse[:batch])) == 0, batch
    # More splits are launched than there are keys for, and the batch is turned around.
    found = last_rows(data[::-1], SHAPE, slack=3000)
    assert unequal_results(found, (out.flip(0), lse.flip(0))) == 0


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_pages_of_any_size(dtype, page):
    data = [sequence(n, SHAPE, dtype, n) for n in EDGES]
    expected = expected_last(data, SHAPE)
    assert unequal_results(last_rows(data, SHAPE, page), expected) == 0
    assert unequal_results(whole(data[-1], SHAPE, page), whole(data[-1], SHAPE)) == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_keeps_its_bits_at_every_place_of_its_tile(dtype):
    """One chunk per start: the row stands at another place of the tile, beside other rows."""
    one = sequence(300, SHAPE, dtype, 5)
    out, lse = whole(one, SHAPE)
    for start in range(264, 300):
        found_out, found_lse = chunk(one, start, 300, SHAPE)
        assert unequal(found_out[-1], out[-1]) == 0, start
        assert unequal(found_lse[-1], lse[-1]) == 0, start


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_keeps_its_bits_beside_other_queries(dtype):
    q, k, v = sequence(300, SHAPE, dtype, 6)
    out, lse = whole((q, k, v), SHAPE)
    # Others that are small, large, and zero: neighbours whose maxima and sums are of another size.
    for number, others in enumerate((q.flip(0) * 0.01, q.roll(7, 0) * 30, torch.zeros_like(q))):
        for row in (0, 1, 63, 64, 150, 299):
            mixed = others.clone()
            mixed[row] = q[row]
            found_out, found_lse = whole((mixed, k, v), SHAPE)
            assert unequal(found_out[row], out[row]) == 0, (number, row)
            assert unequal(found_lse[row], lse[row]) == 0, (number, row)
            if row == 150:  # the control: another row did change
                assert unequal(found_out[row + 1], out[row + 1]) > 0
