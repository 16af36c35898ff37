"""The interpreter's arithmetic: right, in a fixed order, and put away after each launch."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from kvparity_kernels import fixed_arithmetic
from kvparity_kernels.launch import kernel, launch

# isort: split
import triton.language as tl
from triton.runtime import interpreter as triton_interpreter
from triton.runtime.errors import InterpreterError

RANDOM = np.random.default_rng(0)


def hard_floats() -> fixed_arithmetic.Array:
    """Float32 patterns: all exponents with mantissas at rounding edges, and random ones."""
    tops = np.arange(0x10000, dtype=np.uint32) << 16  # every bfloat16, NaN and infinities too
    lows = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], dtype=np.uint32)
    edges = (tops[:, None] | lows).ravel()
    noise = RANDOM.integers(0, 2**32, 100_000, dtype=np.uint32)
    return np.concatenate([edges, noise]).view(np.float32)


def test_float32_to_bfloat16_is_torchs() -> None:
    x = hard_floats()
    ours = fixed_arithmetic.float32_to_bfloat16(x)
    torchs = torch.from_numpy(x).bfloat16().view(torch.int16).numpy().view(np.uint16)
    number = ~np.isnan(x)
    assert np.array_equal(ours[number], torchs[number])
    assert (ours[~number] == 0x7FC0).all()
    # The control: Triton's own conversion truncates.
    truncated = (x.view(np.uint32) >> 16).astype(np.uint16)
    assert not np.array_equal(truncated[number], torchs[number])


def test_bfloat16_to_float32_is_torchs() -> None:
    codes = np.arange(0x10000, dtype=np.uint16)
    torchs = torch.from_numpy(codes.view(np.int16)).view(torch.bfloat16).float().numpy()
    assert np.array_equal(
        fixed_arithmetic.bfloat16_to_float32(codes).view(np.uint32), torchs.view(np.uint32)
    )


FLOAT8 = {"fp8e4nv": torch.float8_e4m3fn, "fp8e5": torch.float8_e5m2}


@pytest.mark.parametrize("kind", FLOAT8)
def test_float8_is_torchs_but_saturates(kind: str) -> None:
    codes = np.arange(256, dtype=np.uint8)
    torchs = torch.from_numpy(codes).view(FLOAT8[kind]).float().numpy()
    ours = fixed_arithmetic.float8_to_float32(codes, kind)
    assert np.array_equal(ours, torchs, equal_nan=True)
    assert np.array_equal(np.signbit(ours), np.signbit(torchs) & ~np.isnan(torchs))
    x = hard_floats()
    largest = torch.finfo(FLOAT8[kind]).max
    within = np.abs(x) <= largest
    rounded = fixed_arithmetic.float32_to_float8(x, kind)
    expected = torch.from_numpy(x[within]).to(FLOAT8[kind]).view(torch.uint8).numpy()
    assert np.array_equal(rounded[within], expected)
    beyond = fixed_arithmetic.float8_to_float32(rounded[np.abs(x) > largest], kind)
    assert (np.abs(beyond) == largest).all()
    assert np.isnan(fixed_arithmetic.float8_to_float32(rounded[np.isnan(x)], kind)).all()


@kernel
def convert(X, Y, N: tl.constexpr):
    lane = tl.arange(0, N)
    tl.store(Y + lane, tl.load(X + lane).to(Y.dtype.element_ty))


PAIRS = [*itertools.permutations([torch.float32, torch.float16, torch.bfloat16], 2)]
PAIRS += [(a, b) for a, b in itertools.product(FLOAT8.values(), [torch.float32, torch.bfloat16])]
PAIRS += [(torch.bfloat16, torch.float8_e5m2), (torch.float64, torch.bfloat16)]
PAIRS += [(torch.bfloat16, torch.float64), (torch.bfloat16, torch.int32)]


@pytest.mark.parametrize(("old", "new"), PAIRS, ids=str)
def test_casts_in_a_kernel_are_torchs(old: torch.dtype, new: torch.dtype) -> None:
    x = torch.randn(4096, generator=torch.Generator().manual_seed(0)) * 3
    x[:6] = torch.tensor([0.0, -0.0, 1.00390625, 1.01171875, 2.0**-130, 6e-8])  # ties, denormals
    x = x.to(old)
    y = torch.empty(4096, dtype=new)
    launch(convert, (1,), X=x, Y=y, N=4096)
    width = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[y.element_size()]
    assert torch.equal(y.view(width), x.to(new).view(width))


@kernel
def compute(X, Y, OUT, N: tl.constexpr, WHAT: tl.constexpr):
    at = tl.arange(0, N)
    x, y = tl.load(X + at), tl.load(Y + at)
    if WHAT == "sum":
        out = x + y
    elif WHAT == "product":
        out = x * y
    elif WHAT == "difference with a number":
        out = x - 0.3
    elif WHAT == "negative":
        out = -x
    elif WHAT == "larger":
        out = tl.where(x > y, x, y)
    elif WHAT == "sum of all":
        out = x * 0 + tl.sum(y, 0)
    elif WHAT == "place of the largest":
        out = tl.where(at == tl.argmax(x, 0), x, y)
    elif WHAT == "place of the smallest":
        out = tl.where(at == tl.argmin(x, 0), x, y)
    elif WHAT == "sums so far":
        out = tl.associative_scan(x, 0, tl.standard._sum_combine)
    elif WHAT == "products so far":
        out = tl.associative_scan(x, 0, tl.standard._prod_combine)
    elif WHAT == "not larger":
        out = tl.where((x > y) != (at >= 0), x, y)
    else:
        out = tl.fma(x, y, x)
    tl.store(OUT + at, out)


def halved(x: torch.Tensor) -> torch.Tensor:
    """The sum of one half and the other, each addition rounded to bfloat16."""
    return x if len(x) == 1 else halved(x[: len(x) // 2] + x[len(x) // 2 :])


def so_far(
    x: torch.Tensor, op: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Each number with all before it, each result rounded to bfloat16."""
    return torch.stack(list(itertools.accumulate(x, op)))


def one_of(place: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.arange(len(x)) == place, x, y)


ON_BFLOAT16: dict[str, Any] = {
    "sum": torch.add,
    "product": torch.mul,
    "difference with a number": lambda x, _: x - torch.tensor(0.3).bfloat16(),
    "negative": lambda x, _: -x,
    "sum of all": lambda x, y: halved(y).expand_as(x),
    "larger": lambda x, y: torch.where(x > y, x, y),
    "not larger": lambda x, y: torch.where(x > y, y, x),
    "place of the largest": lambda x, y: one_of(x.argmax(), x, y),
    "place of the smallest": lambda x, y: one_of(x.argmin(), x, y),
    "sums so far": lambda x, _: so_far(x, torch.add),
    "products so far": lambda x, _: so_far(x, torch.mul),
}


def computed(what: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(2)
    x, y = (torch.randn(4096, generator=source).bfloat16() for _ in range(2))
    y[:8] *= 2**9  # the smaller one is rounded off
    out = torch.empty_like(x)
    launch(compute, (1,), X=x, Y=y, OUT=out, N=4096, WHAT=what)
    return x, y, out


@pytest.mark.parametrize("what", ON_BFLOAT16)
def test_a_kernel_that_computes_in_bfloat16_has_torchs_bits(what: str) -> None:
    """The interpreter alone would compute with their bit patterns, as whole numbers."""
    x, y, out = computed(what)
    assert torch.equal(out.view(torch.int16), ON_BFLOAT16[what](x, y).view(torch.int16))


def test_a_fused_bfloat16_is_refused() -> None:
    with pytest.raises(InterpreterError, match="fma of bfloat16 is not known"):
        computed("fused")


def test_dot_is_ascending_and_rounds_once_per_step() -> None:
    a = RANDOM.standard_normal((5, 7)).astype(np.float32)
    b = RANDOM.standard_normal((7, 3)).astype(np.float32)
    start = RANDOM.standard_normal((5, 3)).astype(np.float32)
    expected = start.copy()
    for i, j, k in itertools.product(range(5), range(3), range(7)):
        expected[i, j] = np.float32(expected[i, j] + np.float32(a[i, k] * b[k, j]))
    assert np.array_equal(fixed_arithmetic.dot(a, b, start), expected)
    error = np.abs(fixed_arithmetic.dot(a, b, start) - (start + a.astype(float) @ b.astype(float)))
    # n roundings of at most 2^-24 each, of sums no larger than the sum of magnitudes.
    assert (error <= 14 * 2.0**-24 * (np.abs(start) + np.abs(a) @ np.abs(b))).all()


def test_fma_rounds_once() -> None:
    source = np.random.default_rng(1)
    wild = hard_floats()
    x, y, z = (wild[source.permutation(len(wild))] for _ in range(3))
    a, b, c = source.standard_normal((3, 20_000)).astype(np.float32)
    c[10_000:] = -(a * b)[10_000:]  # what is left is the rounding error of the product
    with np.errstate(all="ignore"):
        ours, wide = fixed_arithmetic.fma(x, y, z), x.astype(np.float64) * y + z
    assert np.array_equal(np.isnan(ours), np.isnan(wide))
    exact = np.array(
        [
            float(Fraction(float(i)) * Fraction(float(j)) + Fraction(float(k)))
            for i, j, k in zip(a, b, c, strict=True)
        ],
        np.float32,
    )
    assert np.array_equal(fixed_arithmetic.fma(a, b, c), exact)
    assert not np.array_equal(a * b + c, exact)
    native = getattr(triton_interpreter._interpreter, "fma_fp32", None)
    if native is not None:  # Triton 3.9 has its own
        assert np.array_equal(ours, native(x, y, z), equal_nan=True)


def row_dependence(dot: Any) -> int:
    """How often a row changes with its place among 32, or with the number of rows."""
    a = RANDOM.standard_normal((1, 64)).astype(np.float32)
    b = RANDOM.standard_normal((64, 32)).astype(np.float32)
    alone = dot(a, b, np.zeros((1, 32), np.float32))
    many = dot(np.repeat(a, 32, 0), b, np.zeros((32, 32), np.float32))
    turned = dot(np.asfortranarray(a), np.asfortranarray(b), np.zeros((1, 32), np.float32))
    return int((many != alone).sum() + (turned != alone).sum())


def test_dot_does_not_depend_on_place_or_layout() -> None:
    def paired(
        a: fixed_arithmetic.Array, b: fixed_arithmetic.Array, start: fixed_arithmetic.Array
    ) -> fixed_arithmetic.Array:
        half = a.shape[0] // 2  # a control: rows of the second half sum backwards
        down = fixed_arithmetic.dot(a[half:, ::-1], b[::-1], start[half:])
        return np.concatenate([fixed_arithmetic.dot(a[:half], b, start[:half]), down])

    assert row_dependence(fixed_arithmetic.dot) == 0
    assert row_dependence(paired) > 0


def test_sum_is_one_tree_for_every_layout() -> None:
    x = RANDOM.standard_normal((64, 128)).astype(np.float32)
    rows = x
    while rows.shape[1] > 1:
        half = rows.shape[1] // 2
        rows = rows[:, :half] + rows[:, half:]
    assert np.array_equal(fixed_arithmetic.tree_sum(x, 1), rows[:, 0])
    assert np.array_equal(fixed_arithmetic.tree_sum(np.asfortranarray(x), 1), rows[:, 0])
    assert np.array_equal(fixed_arithmetic.tree_sum(x.T, 0), rows[:, 0])
    assert np.array_equal(fixed_arithmetic.tree_sum(x, -1), rows[:, 0])
    assert fixed_arithmetic.tree_sum(np.arange(5), 0) == 10
    assert fixed_arithmetic.tree_sum(np.ones(8, bool), 0) == 8
    # The control: numpy's own sum follows the layout.
    assert not np.array_equal(np.sum(x, 1), np.sum(np.asfortranarray(x), 1))


def test_what_triton_imports_at_its_first_launch_wraps_no_patch() -> None:
    x, y = torch.ones(4), torch.zeros(4)
    launch(convert, (1,), x, y, N=4)
    core = sys.modules["triton.experimental.gluon.language._core"]
    assert core.static_print.__wrapped__ is tl.core.static_print
    assert tl.core.static_print is not print
