"""The embedding copies bits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kvparity_kernels.embedding import embed, naive

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def table(dtype: torch.dtype, width: int = 40) -> Tensor:
    w = torch.randn(11, width, generator=torch.Generator().manual_seed(0)).to(dtype)
    w[3, 0], w[3, 1], w[3, 2] = -0.0, float("inf"), float("nan")
    return w


def bits(x: Tensor) -> Tensor:
    return x.contiguous().view(torch.int32 if x.dtype == torch.float32 else torch.int16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 40, 1500])
def test_rows_are_copied(dtype: torch.dtype, width: int) -> None:
    w, ids = table(dtype, max(width, 3))[:, :width], torch.tensor([3, 0, 10, 3, 3, 7])
    for twin in (False, True):
        found = embed(ids, w, twin=twin)
        assert found.dtype == dtype
        assert torch.equal(bits(found), torch.stack([bits(w[int(i)]) for i in ids]))
        assert not torch.equal(bits(found), bits(embed(ids.flip(0), w, twin=twin)))  # control
    finite = torch.tensor([0, 10, 7])
    assert torch.equal(embed(finite, w).double(), naive.embed(finite, w))


def test_strided_tables() -> None:
    wide = table(torch.float32)
    ids = torch.arange(11)
    for twin in (False, True):
        assert torch.equal(bits(embed(ids, wide[:, 8:24], twin=twin)), bits(wide[:, 8:24]))
        assert torch.equal(bits(embed(ids[::2], wide, twin=twin)), bits(wide[::2]))


def test_unknown_ids_write_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # What happens on a GPU, where ids are not looked at before the launch.
    monkeypatch.setattr("kvparity_kernels.arguments.require_indices", lambda *_: None)
    found = embed(torch.tensor([-1, 4, 11, 2**40]), table(torch.float32))
    assert found.isnan().all(dim=1).tolist() == [True, False, True, True]


def test_refusals() -> None:
    w, ids = table(torch.float32), torch.tensor([1, 2])
    for i, v, words in (
        (ids.int(), w, "ids has dtype torch.int32, expected int64"),
        (torch.tensor([0, 11]), w, r"ids holds values 0 .. 11, expected 0 .. 10"),
        (torch.tensor([-1]), w, r"ids holds values -1 .. -1"),
        (ids[None], w, r"ids has shape \[1, 2\]"),
        (ids, w[0], r"w has shape \[40\]"),
        (ids, w.T, "last dimension of w has stride 40"),
        (ids, w.to("meta"), "ids is on cpu but w is on meta"),
    ):
        with pytest.raises(ValueError, match=words):
            embed(i, v)
    with pytest.raises(ValueError, match="twin=True is for CPU tensors"):
        embed(ids.to("meta"), w.to("meta"), twin=True)
