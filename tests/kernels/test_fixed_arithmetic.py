"""The interpreter's arithmetic beside plain loops, exact fractions, and torch's own formats."""

from __future__ import annotations

import itertools
import warnings
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime.interpreter import TensorHandle

from kvparity_kernels import fixed_arithmetic, interpreter
from kvparity_kernels.launch import kernel, launch
from kvparity_kernels.relied import GoneError
from kvparity_kernels.relied import triton as relied

F32 = np.float32


def nearest(x: Fraction) -> np.float32:
    """Float32, to nearest, ties to even."""
    guess = F32(float(x))
    near = {guess, np.nextafter(guess, F32(-np.inf)), np.nextafter(guess, F32(np.inf))}
    return min(near, key=lambda y: (abs(Fraction(float(y)) - x), int(y.view(np.uint32)) & 1))


ONE = 1 + 2.0**-12
TIES: dict[str, tuple[float, float, float]] = {
    # A product between two float32, and a term that float64 cannot add to it.
    "a tie below an even one": (ONE, ONE, 0.0),
    "a tie below an odd one": (ONE, 1 + 3 * 2.0**-12, 0.0),
    "just above a tie": (ONE, ONE, 2.0**-60),
    "just below a tie": (ONE, 1 + 3 * 2.0**-12, -(2.0**-60)),
    "just above, from an odd number of float64": (ONE, ONE, 2.0**-52 * (1 - 2.0**-24)),
    "just below, from an odd number of float64": (
        ONE, 1 + 3 * 2.0**-12, -(2.0**-52) * (1 - 2.0**-24)
    ),
    "two steps of float64 below a tie, and a little more": (
        ONE, 1 + 3 * 2.0**-12, -(2.0**-51) * (1 - 2.0**-9)
    ),
    "two steps of float64 above a tie, and a little less": (ONE, ONE, 2.0**-51 * (1 - 2.0**-9)),
    # A term that is much larger than the product.
    "a product just below a tie": (1 + 2.0**-20, 2.0**-24 * (1 - 2.0**-20), 1.0),
    "a product just above a tie": (1 + 2.0**-20, 2.0**-24 * (1 + 2.0**-20), 1.0),
    "all is exact": (3.0, 5.0, 7.0),
    "nothing is left": (3.0, 5.0, -15.0),
}  # fmt: skip


@pytest.mark.parametrize("name", TIES)
def test_an_fma_rounds_once_wherever_two_roundings_would_not_do(name: str) -> None:
    x, y, z = TIES[name]
    for scale, a, b in itertools.product((-40, 0, 40), (1, -1), (1, -1)):
        u, v, w = F32(a * x), F32(b * y * 2.0**scale), F32(a * b * z * 2.0**scale)
        exact = Fraction(float(u)) * Fraction(float(v)) + Fraction(float(w))
        found = fixed_arithmetic.fma(np.array([u]), np.array([v]), np.array([w]))
        assert found.dtype == F32
        assert found[0] == nearest(exact)


def test_an_fma_of_infinities_is_float64s() -> None:
    odd = np.array([0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 3e38, -3e38], F32)
    x, y, z = (grid.ravel() for grid in np.meshgrid(odd, odd, odd))
    with np.errstate(all="ignore"):
        wanted = (x.astype(float) * y + z.astype(float)).astype(F32)
        assert np.array_equal(fixed_arithmetic.fma(x, y, z), wanted, equal_nan=True)


def halved(x: list[Any]) -> Any:
    """The first half, the larger one, plus the second, until one is left."""
    while len(x) > 1:
        half = -(-len(x) // 2)
        x = [a + x[half + i] if half + i < len(x) else a for i, a in enumerate(x[:half])]
    return x[0]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 9, 17])
def test_a_sum_is_a_tree_of_halves(size: int) -> None:
    source = np.random.default_rng(size)
    for shape, axis in (((size,), 0), ((2, size, 3), 1), ((size, 2), 0), ((3, size), -1)):
        numbers = source.standard_normal(shape).astype(F32)
        for x in (numbers, numbers > 0, (numbers * 9).astype(np.int32)):
            before = x.copy()
            given = x.astype(np.int64) if x.dtype == bool else x
            wanted = halved(list(np.moveaxis(given, axis, 0)))
            found = fixed_arithmetic.tree_sum(x, axis)
            assert isinstance(found, np.ndarray)
            assert found.shape == tuple(np.delete(shape, axis))
            assert np.array_equal(found, wanted)
            assert np.array_equal(x, before)


def test_a_dot_of_a_batch_is_the_dots_of_its_parts() -> None:
    source = np.random.default_rng(0)
    a, b = (source.standard_normal(s).astype(F32) for s in ((2, 3, 5), (2, 5, 4)))
    start = source.standard_normal((2, 3, 4)).astype(F32)
    before = start.copy()
    whole = fixed_arithmetic.dot(a, b, start)
    for i in range(2):
        assert np.array_equal(whole[i], fixed_arithmetic.dot(a[i], b[i], start[i]))
    assert np.array_equal(start, before)


KINDS = {"fp8e4nv": torch.float8_e4m3fn, "fp8e5": torch.float8_e5m2}


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_of_a_format_is_torchs(kind: str) -> None:
    values, largest = fixed_arithmetic._float8()[kind]
    torchs = torch.arange(256, dtype=torch.uint8).view(KINDS[kind]).float().numpy()
    assert values.dtype == F32
    assert np.array_equal(values, torchs, equal_nan=True)
    number = ~np.isnan(torchs)
    assert np.array_equal(np.signbit(values)[number], np.signbit(torchs)[number])
    assert values[largest] == torch.finfo(KINDS[kind]).max


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_beyond_a_format_keeps_its_sign(kind: str) -> None:
    largest = torch.finfo(KINDS[kind]).max
    for x in (largest * 1.001, 1e30, np.inf):
        both = np.array([x, -x], F32)
        assert fixed_arithmetic.float8_to_float32(
            fixed_arithmetic.float32_to_float8(both, kind), kind
        ).tolist() == [
            largest,
            -largest,
        ]
    assert fixed_arithmetic.float32_to_float8(np.array([np.nan, -np.nan], F32), kind).tolist() == [
        127,
        127,
    ]
    zeros = fixed_arithmetic.float32_to_float8(np.array([0.0, -0.0], F32), kind)
    assert (zeros.tolist(), zeros.dtype) == ([0, 128], np.uint8)


NARROW = {
    tl.bfloat16: (torch.bfloat16, np.uint16),
    tl.float8e4nv: (torch.float8_e4m3fn, np.uint8),
    tl.float8e5: (torch.float8_e5m2, np.uint8),
}
WIDE = {tl.float16: torch.float16, tl.float32: torch.float32, tl.float64: torch.float64}


@pytest.mark.parametrize("old", NARROW, ids=str)
@pytest.mark.parametrize("new", WIDE, ids=str)
def test_every_code_is_widened_as_torch_widens_it(old: Any, new: Any) -> None:
    dtype, width = NARROW[old]
    codes = np.arange(np.iinfo(width).max + 1).astype(width)
    handle = TensorHandle(codes, old)
    builder = relied.interpreter().InterpreterBuilder
    with interpreter.quiet():
        found = builder.create_fp_to_fp(None, handle, new, None).data
    signed = codes if width == np.uint8 else codes.view(np.int16)
    wanted = torch.from_numpy(signed).view(dtype).to(WIDE[new]).numpy()
    assert found.dtype == wanted.dtype
    assert np.array_equal(found, wanted, equal_nan=True)
    number = ~np.isnan(wanted)
    assert np.array_equal(np.signbit(found)[number], np.signbit(wanted)[number])


@pytest.mark.parametrize(
    ("dtype", "width"), [(tl.float16, np.float16), (tl.bfloat16, np.uint16)], ids=str
)
def test_a_dot_that_would_add_in_16_bits_is_refused(dtype: Any, width: Any) -> None:
    a, b, d = (TensorHandle(np.zeros((16, 16), width), dtype) for _ in range(3))
    with pytest.raises(NotImplementedError, match="accumulates in float32 here, not in a 16-bit"):
        interpreter._dot(None, a, b, d, None, 0)
    wide = TensorHandle(np.zeros((16, 16), F32), tl.float32)
    assert interpreter._dot(None, a, b, wide, None, 0).data.dtype == F32


def test_a_format_that_is_not_known_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="does not know fp8e4b8"):
        interpreter._wide(np.zeros(4, np.uint8), tl.float8e4b8)
    assert interpreter._wide(np.arange(4, dtype=np.int8), tl.int8).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("category", [RuntimeWarning, DeprecationWarning])
def test_warnings_are_quiet_inside_and_as_before_outside(category: type[Warning]) -> None:
    with interpreter.quiet():
        warnings.warn("planted", category, stacklevel=1)
        assert np.isinf(np.float32(1) / np.zeros(1, F32)).all()
    with pytest.warns(category, match="planted"):
        warnings.warn("planted", category, stacklevel=1)


def test_an_fma_that_rounds_twice_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(self: Any, x: Any, y: Any, z: Any) -> Any:
        return TensorHandle(x.data * y.data + z.data, z.dtype)

    x, y, z = ONE, 1 + 3 * 2.0**-12, -(2.0**-60)
    monkeypatch.setattr(relied, "has_fma", lambda: True)
    assert interpreter._fma(twice) is twice
    monkeypatch.setattr(relied, "has_fma", lambda: False)
    replaced = interpreter._fma(twice)
    for dtype, kind in ((np.float32, tl.float32), (np.float64, tl.float64)):
        a, b, c = (TensorHandle(np.array([v], dtype), kind) for v in (x, y, z))
        found, plain = replaced(None, a, b, c), twice(None, a, b, c)
        assert (found.dtype, found.data.dtype) == (kind, dtype)
        assert (found.data == plain.data) == (kind == tl.float64)
    assert fixed_arithmetic.fma(*(np.array([v], F32) for v in (x, y, z))) == nearest(
        Fraction(x) * Fraction(y) + Fraction(z)
    )


def test_the_arithmetic_is_put_in_once_and_only_where_all_hooks_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inside, calls = relied.interpreter(), list[str]()
    builder = inside.InterpreterBuilder
    names = ["create_dot", "cast_impl", "create_fp_to_fp", "create_fma", "binary_op", "unary_op"]
    names += ["create_dot_scaled"] * (relied.scaled_dot() is not None)

    def hooks() -> list[Any]:
        return [*(vars(builder)[name] for name in names), vars(inside.ReduceOps)["sum"]]

    for name in names:  # put back at the end
        monkeypatch.setattr(builder, name, lambda *given: None)
    monkeypatch.setattr(inside.ReduceOps, "sum", lambda *given: None)
    monkeypatch.setattr(interpreter, "_installed", False)
    monkeypatch.setattr(relied, "check_hooks", lambda: calls.append("check"))
    monkeypatch.setattr(relied, "import_early", lambda: calls.append("early"))
    monkeypatch.setattr(interpreter.interpreter_fastpath, "install", lambda: calls.append("quick"))
    before = hooks()

    def other() -> None:
        raise relied.gone("triton", "`create_dot`", "add")

    with monkeypatch.context() as changed:
        changed.setattr(relied, "check_hooks", other)
        with pytest.raises(GoneError):
            interpreter.install()
    assert (hooks(), calls) == (before, [])
    interpreter.install()
    put = hooks()
    interpreter.install()
    assert (hooks(), calls) == (put, ["check", "early", "quick"])
    assert all(a is not b for a, b in zip(put, before, strict=True))


@kernel
def sums(X, ALL, KEPT, ROWS, COLUMNS, N: tl.constexpr):
    lane = tl.arange(0, N)
    x = tl.load(X + lane[:, None] * N + lane[None, :])
    tl.store(ALL, tl.sum(x))
    tl.store(KEPT + tl.arange(0, 1)[:, None] + tl.arange(0, 1)[None, :], tl.sum(x, keep_dims=True))
    tl.store(ROWS + lane[:, None], tl.sum(x, 1, keep_dims=True))
    tl.store(COLUMNS + lane[None, :], tl.sum(x, 0, keep_dims=True))


def test_sums_keep_their_dimensions_where_they_are_to() -> None:
    x = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    whole, kept, rows, columns = torch.zeros(1), torch.zeros(1), torch.zeros(4), torch.zeros(4)
    launch(sums, (1,), x, whole, kept, rows, columns, N=4)
    wanted = halved(list(x.flatten()))
    assert whole[0] == kept[0] == wanted
    assert torch.equal(rows, halved(list(x.T)))
    assert torch.equal(columns, halved(list(x)))
