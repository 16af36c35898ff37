"""On the device: a row of every operation depends on itself alone, and digests on no device."""

from __future__ import annotations

import pytest
import torch
from device_cases import DTYPES, operations, row_faults, unequal

from kvparity_kernels.digest import row_digest

pytestmark = pytest.mark.gpu
ROWS = 300
NAMES = list(operations(torch.float32, "meta", rows=1, width=8, vocab=8))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_one_row_has_the_bits_of_that_row_among_300(name, dtype):
    op = operations(dtype, "cuda", ROWS)[name]
    assert row_faults(op, ROWS, (0, 1, 15, 16, 63, 64, 150, 299), "cuda") == []


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_that_looks_at_its_neighbours_is_seen(dtype):
    x = torch.randn(ROWS, 64, generator=torch.Generator().manual_seed(1)).to(dtype).cuda()
    assert row_faults(lambda i: x[i] - x[i].float().mean(0).to(dtype), ROWS, (0,), "cuda") != []


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [1, 63, 1024, 5003])
def test_digests_are_those_of_the_cpu(dtype, width):
    source = torch.Generator().manual_seed(width)
    integers = {2: torch.int16, 4: torch.int32}[dtype.itemsize]
    limits = torch.iinfo(integers)
    # Any pattern of bits: NaN, infinities, -0 and subnormal numbers are among them.
    drawn = torch.randint(limits.min, limits.max, (40, width), generator=source, dtype=torch.int64)
    x = drawn.to(integers).view(dtype)
    expected = row_digest(x)
    assert unequal(row_digest(x.cuda()).cpu(), expected) == 0
    flipped = (drawn.to(integers) ^ 1).view(dtype).cuda()
    assert unequal(row_digest(flipped).cpu(), expected) == 40
