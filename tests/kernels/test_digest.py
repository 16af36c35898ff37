"""The row digest: three implementations, one number; every change is seen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kvparity_kernels.digest import naive, row_digest, twin

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 5, 1024, 1025, 2500])
def test_kernel_twin_and_python_agree(width: int, dtype: torch.dtype) -> None:
    x = draw(4, width, dtype=dtype)
    x[0, 0], x[1, 0], x[2, 0] = float("nan"), -0.0, float("-inf")
    expected = naive.row_digest(x).tolist()
    assert row_digest(x).tolist() == expected
    assert row_digest(x, twin=True).tolist() == expected
    assert row_digest(x, twin=False).tolist() == expected


def test_a_known_value() -> None:
    # splitmix64 seeded with 0 gives this first; one zero in column 0 is the word 0.
    assert naive.mix(0) == 0xE220A8397B1DCDAF
    assert row_digest(torch.zeros(1, 1)).item() == 0xE220A8397B1DCDAF - (1 << 64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_change_of_one_bit_is_seen(dtype: torch.dtype) -> None:
    x = draw(1, 33, dtype=dtype)
    view = torch.int32 if dtype == torch.float32 else torch.int16
    size = 8 * x.element_size()
    rows = x.view(view).repeat(33 * size, 1)
    for column in range(33):
        for bit in range(size):
            flip = 1 << bit if bit < size - 1 else -(1 << bit)
            rows[column * size + bit, column] ^= flip
    digests = set(row_digest(rows.view(dtype)).tolist())
    assert len(digests) == 33 * size
    assert row_digest(x).item() not in digests


def test_swaps_and_signs_are_seen() -> None:
    x = draw(1, 40)
    swapped = [x.clone() for _ in range(39)]
    for i, row in enumerate(swapped):
        row[0, [i, i + 1]] = row[0, [i + 1, i]]
    digests = row_digest(torch.cat([x, *swapped])).tolist()
    assert len(set(digests)) == 40
    zeros = torch.zeros(2, 8)
    zeros[1, 5] = -0.0
    assert row_digest(zeros)[0] != row_digest(zeros)[1]


def test_a_digest_without_positions_misses_swaps() -> None:
    # The control of the test above: the plain sum of the bits cannot tell the rows apart.
    x = draw(1, 40)
    swapped = x.clone()
    swapped[0, [3, 4]] = swapped[0, [4, 3]]
    blind = [row.view(torch.int32).to(torch.int64).sum().item() for row in (x, swapped)]
    assert blind[0] == blind[1]
    assert row_digest(x) != row_digest(swapped)


@pytest.mark.parametrize("kernel", [False, True])
def test_a_row_depends_on_itself_alone(kernel: bool) -> None:
    x = draw(20, 70)
    full = row_digest(x, twin=not kernel)
    assert torch.equal(row_digest(x.flip(0), twin=not kernel).flip(0), full)
    assert row_digest(x[7:8], twin=not kernel).item() == full[7].item()
    assert len(set(full.tolist())) == 20


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = draw(9, 300)
    full = row_digest(x)
    monkeypatch.setattr(twin, "COLUMNS", 64)
    monkeypatch.setattr(twin, "ELEMENTS", 128)
    assert torch.equal(row_digest(x), full)


def test_strides_change_nothing() -> None:
    x = draw(12, 30)
    for view in (x[::2], x[:, 4:20]):
        expected = row_digest(view.contiguous())
        assert torch.equal(row_digest(view), expected)
        assert torch.equal(row_digest(view, twin=False), expected)
    assert torch.equal(row_digest(x.T), row_digest(x.T.contiguous()))


def test_no_rows_and_no_columns() -> None:
    for choice in (False, True):
        assert row_digest(draw(0, 5), twin=choice).shape == (0,)
        assert row_digest(draw(2, 0), twin=choice).tolist() == [0, 0]


def test_refusals() -> None:
    for x, words in (
        (draw(3), r"x has shape \[3\], expected \[any, any\]"),
        (draw(3, 3).double(), "x has dtype torch.float64"),
        (draw(3, 3).int(), "x has dtype torch.int32"),
    ):
        with pytest.raises(ValueError, match=words):
            row_digest(x)
    with pytest.raises(ValueError, match="twin=True is for CPU tensors"):
        row_digest(draw(3, 3).to("meta"), twin=True)
    with pytest.raises(ValueError, match="last dimension of x has stride 3"):
        row_digest(draw(2, 3).T, twin=False)
