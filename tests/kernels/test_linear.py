"""Linear: accuracy, independence of rows, and the order of its sum."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from kvparity_kernels import launch
from kvparity_kernels.linear import linear, naive
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.tiles import LinearTile, Tiles, candidates, using

ORDER = ReductionOrder()
UNIT = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
DTYPES = list(UNIT)


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def bits(x: Tensor) -> Tensor:
    return x.contiguous().view(torch.int32 if x.dtype == torch.float32 else torch.int16)


def differing(a: Tensor, b: Tensor) -> int:
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    return int((bits(a) != bits(b)).sum())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n", "k", "biased"), [(5, 70, 100, True), (65, 33, 64, False)])
def test_close_to_float64(m: int, n: int, k: int, biased: bool, dtype: torch.dtype) -> None:
    x, w = draw(m, k, dtype=dtype), draw(n, k, dtype=dtype, seed=1)
    bias = draw(n, dtype=dtype, seed=2) if biased else None
    exact = naive.linear(x, w, bias)
    # A chain of k products and k sums (and the bias) in float32: each term passes at most k + 2
    # roundings (1 % covers their higher powers); then one rounding to the dtype.
    size = naive.linear(x.abs(), w.abs(), None if bias is None else bias.abs())
    bound = 1.01 * (k + 2) * UNIT[torch.float32] * size + UNIT[dtype] * exact.abs() * 1.01
    for twin in (False, True):
        found = linear(x, w, bias, order=ORDER, twin=twin)
        assert found.dtype == dtype
        assert ((found.double() - exact).abs() <= bound).all()


def test_the_bound_is_not_idle() -> None:
    x, w = draw(5, 100), draw(70, 100, seed=1)
    exact = naive.linear(x, w)
    bound = 1.01 * 102 * UNIT[torch.float32] * naive.linear(x.abs(), w.abs())
    rough = x.bfloat16().double() @ w.bfloat16().double().T
    assert ((rough - exact).abs() > bound).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("twin", [False, True])
def test_a_row_depends_on_itself_alone(dtype: torch.dtype, twin: bool) -> None:
    x, w = draw(300, 40, dtype=dtype), draw(70, 40, dtype=dtype, seed=1)
    bias = draw(70, dtype=dtype, seed=2)
    full = linear(x, w, bias, order=ORDER, twin=twin)
    for row in (0, 63, 64, 299):
        alone = linear(x[row : row + 1], w, bias, order=ORDER, twin=twin)
        assert differing(alone[0], full[row]) == 0
        for place in (0, 17, 65):
            among = torch.full((66, 40), float("nan"), dtype=dtype)
            among[place] = x[row]
            moved = linear(among, w, bias, order=ORDER, twin=twin)
            assert differing(moved[place], full[row]) == 0
            assert moved.isnan().all(dim=1).sum() == 65  # the neighbours were really there


@pytest.mark.parametrize("name", [name for name in candidates() if name.startswith("linear ")])
def test_tiles_by_number_of_rows_change_no_bit(name: str) -> None:
    order = ReductionOrder(block_m=16)
    ((_, tile),) = candidates()[name].linear
    for n, k in ((70, 300), (256, 256)):  # with masks along K and N, and without any
        x, w = draw(20, k, dtype=torch.bfloat16), draw(n, k, dtype=torch.bfloat16, seed=1)
        base = linear(x, w, order=order)
        with using(Tiles(linear=((0, tile),))), launch.record() as log:
            assert differing(linear(x, w, order=order), base) == 0
        (ran,) = log.kernels.values()
        assert ran["constexprs"]["BLOCK_K"] == tile.block_k
        assert ran["num_stages"] == tile.num_stages


def test_the_tile_follows_the_rows() -> None:
    x, w = draw(20, 64), draw(40, 64, seed=1)
    few = LinearTile(16, 16, 64, 2, 2)
    with using(Tiles(linear=((8, few),))), launch.record() as log:
        for rows in (8, 9):
            assert (
                differing(linear(x[:rows], w, order=ORDER), linear(x, w, order=ORDER)[:rows]) == 0
            )
    assert sorted(ran["constexprs"]["BLOCK_N"] for ran in log.kernels.values()) == [16, 64]


def test_bands_of_tiles_cover_every_tile_once() -> None:
    # 19 tiles of rows in bands of 8, the last of which has 3; what no tile computes stays NaN.
    x, w = draw(300, 16), draw(130, 16, seed=1)
    found = linear(x, w, order=ReductionOrder(block_m=16))
    assert differing(found, linear(x, w, order=ORDER, twin=True)) == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("tl.minimum(tl.cdiv(rows, BLOCK_M) - first, BAND)", "BAND"),
        ("in tl.range(0, K, BLOCK_K):\n", "in tl.range(0, K, BLOCK_K):\n        k = (K - 1) // "
         "BLOCK_K * BLOCK_K - k\n"),
        ("if K % BLOCK_K != 0:", "if False:"),
    ],
    ids=["a band that is not full", "K from its end", "no mask along K"],
)  # fmt: skip
def test_a_fault_in_the_tile_is_seen(
    old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kvparity_kernels.linear import kernels

    text = Path(kernels.__file__ or "").read_text()
    assert text.count(old) == 1
    path = tmp_path / "kernels.py"
    path.write_text(text.replace(old, new))
    spec = importlib.util.spec_from_file_location("faulty_linear.kernels", path)
    assert spec is not None
    assert spec.loader is not None
    faulty = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, faulty)
    spec.loader.exec_module(faulty)
    x, w = draw(300, 72), draw(130, 72, seed=1)
    x[0, 0] = w[0, 0] = torch.nan  # what lies behind a row that is not masked
    order = ReductionOrder(block_m=16)
    with monkeypatch.context() as here:
        here.setattr(kernels, "linear", faulty.linear)
        found = linear(x, w, order=order)
    assert differing(found, linear(x, w, order=order)) > 0


def test_row_and_column_tiles_change_no_bit() -> None:
    x, w = draw(70, 48), draw(130, 48, seed=1)
    full = linear(x, w, order=ORDER)
    for block_m in (16, 32, 128):
        assert differing(linear(x, w, order=ReductionOrder(block_m=block_m)), full) == 0
    assert differing(linear(x, w[60:90], order=ORDER), full[:, 60:90]) == 0


def chain(x: Tensor, w: Tensor, fused: bool, indices: range) -> Tensor:
    a, b = x.numpy(), w.numpy()
    acc = np.zeros((a.shape[0], b.shape[0]), np.float32)
    for k in indices:
        left, right = a[:, k, None], b[None, :, k]
        if fused:  # the product of two float32 is exact in float64
            acc = (acc + left.astype(np.float64) * right).astype(np.float32)
        else:
            acc = acc + left * right
    return torch.from_numpy(acc)


def test_the_order_is_ascending_and_unfused() -> None:
    x, w = draw(9, 70), draw(20, 70, seed=1)
    for twin in (False, True):
        found = linear(x, w, order=ORDER, twin=twin)
        assert differing(found, chain(x, w, False, range(70))) == 0
        # Controls: another order, and a contracted multiply-add, are seen.
        assert differing(found, chain(x, w, False, range(69, -1, -1))) > 0
        assert differing(found, chain(x, w, True, range(70))) > 0


def test_reversing_k_of_the_twin_is_seen() -> None:
    x, w = draw(9, 70), draw(20, 70, seed=1)
    kernel = linear(x, w, order=ORDER)
    assert differing(kernel, linear(x.flip(1), w.flip(1), order=ORDER, twin=True)) > 0


@pytest.mark.parametrize("twin", [False, True])
def test_bias_and_result_are_rounded_once(twin: bool) -> None:
    x, w = draw(9, 70, dtype=torch.bfloat16), draw(20, 70, dtype=torch.bfloat16, seed=1)
    bias = draw(20, dtype=torch.bfloat16, seed=2)
    wide = linear(x, w, order=ORDER, out_dtype=torch.float32, twin=twin)
    found = linear(x, w, bias, order=ORDER, twin=twin)
    assert differing(found, (wide + bias.float()).bfloat16()) == 0
    assert differing(found, wide.bfloat16() + bias) > 0  # control: rounded before the bias


def test_layouts_of_memory_change_no_bit() -> None:
    x, w = draw(9, 32), draw(20, 32, seed=1)
    found = linear(x, w, order=ORDER)
    for a, b in ((x.T.contiguous().T, w), (x, w.T.contiguous().T), (x[:], w.clone()[:])):
        assert differing(linear(a, b, order=ORDER), found) == 0
    shifted = torch.empty(9 * 32 + 1)[1:].view(9, 32).copy_(x)  # not on 16 bytes
    assert differing(linear(shifted, w, order=ORDER), found) == 0


def test_no_rows() -> None:
    for twin in (False, True):
        assert linear(draw(0, 8), draw(3, 8), order=ORDER, twin=twin).shape == (0, 3)


def test_refusals() -> None:
    x, w = draw(2, 8), draw(3, 8)
    for a, b, bias, words in (
        (x[0], w, None, r"x has shape \[8\], expected \[any, any\]"),
        (x, draw(3, 9), None, r"w has shape \[3, 9\], expected \[any, 8\]"),
        (x, w.half(), None, "w has dtype torch.float16 but x has torch.float32"),
        (x.double(), w, None, "x has dtype torch.float64, expected float32"),
        (x, w, draw(4), r"bias has shape \[4\], expected \[3\]"),
        (x, w.to("meta"), None, "w is on meta but x is on cpu"),
        (draw(2, 0), draw(3, 0), None, "which is empty"),
    ):
        with pytest.raises(ValueError, match=words):
            linear(a, b, bias, order=ORDER)
    with pytest.raises(ValueError, match=r"out_dtype is torch\.int8"):
        linear(x, w, order=ORDER, out_dtype=torch.int8)
    with pytest.raises(ValueError, match="twin=True is for CPU tensors, but the input is on meta"):
        linear(x.to("meta"), w.to("meta"), order=ORDER, twin=True)
