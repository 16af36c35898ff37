"""The CPU twins have the bits of the interpreted kernels, for every operation, shape and dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from kvparity_kernels import arguments, launch
from kvparity_kernels.digest import row_digest
from kvparity_kernels.embedding import embed
from kvparity_kernels.linear import linear
from kvparity_kernels.linear import twin as linear_twin
from kvparity_kernels.logprob import logprob
from kvparity_kernels.norm import rms_norm
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.rope import rope, tables
from kvparity_kernels.swiglu import swiglu

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
ORDER = ReductionOrder()
Case = tuple[str, Callable[[bool], Tensor]]


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Normal numbers, some of them far out, some subnormal, some zeros of both signs."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator)
    kind = torch.randint(0, 40, shape, generator=generator)
    x = torch.where(kind == 0, x * 60, x)
    x = torch.where(kind == 1, x * 1e-7, x)
    x = torch.where(kind == 2, x * 1e-39, x)
    return torch.where(kind == 3, x * 0, x).to(dtype)


def differing(a: Tensor, b: Tensor) -> int:
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    views = {8: torch.int64, 4: torch.int32, 2: torch.int16}
    view = views[a.element_size()]
    return int((a.contiguous().view(view) != b.contiguous().view(view)).sum())


def linears(dtype: torch.dtype) -> Iterator[Case]:
    shapes = [(1, 1, 1), (1, 1, 70), (1, 256, 64), (2, 1, 33), (65, 65, 31), (3, 130, 200)]
    for m, n, k in shapes:
        x, w, b = draw(m, k, dtype=dtype), draw(n, k, dtype=dtype, seed=1), draw(n, dtype=dtype)
        yield f"linear {m} {n} {k}", lambda t, x=x, w=w: linear(x, w, order=ORDER, twin=t)
        yield (
            f"linear {m} {n} {k} bias to float32",
            lambda t, x=x, w=w, b=b: linear(x, w, b, order=ORDER, out_dtype=torch.float32, twin=t),
        )


def norms(dtype: torch.dtype) -> Iterator[Case]:
    for rows, width in [(1, 1), (3, 3), (5, 64), (2, 100), (2, 2048), (2, 4096), (2, 9000)]:
        x, w = draw(rows, width, dtype=dtype), draw(width, dtype=dtype, seed=1)
        yield f"norm {rows} {width}", lambda t, x=x, w=w: rms_norm(x, w, 1e-6, twin=t)


def ropes(dtype: torch.dtype) -> Iterator[Case]:
    for tokens, heads, half in [(1, 1, 1), (5, 3, 4), (9, 4, 20), (3, 8, 64)]:
        x, f = draw(tokens, heads, 2 * half, dtype=dtype), 1e4 ** -(torch.arange(half) / half)
        p = torch.tensor([0, 1, 2, 500, 4097, 80_001, 131_071, 1_000_003, 2**24 + 1])[:tokens]
        yield f"rope {tokens} {heads} {half}", lambda t, x=x, p=p, f=f: rope(x, p, f, twin=t)


def activations(dtype: torch.dtype) -> Iterator[Case]:
    for rows, width in [(1, 1), (5, 70), (3, 1024), (2, 1300)]:
        g, u = draw(rows, width, dtype=dtype) * 3, draw(rows, width, dtype=dtype, seed=1)
        yield f"swiglu {rows} {width}", lambda t, g=g, u=u: swiglu(g, u, twin=t)


def logprobs(dtype: torch.dtype) -> Iterator[Case]:
    for rows, vocab in [(1, 1), (4, 7), (5, 256), (3, 1000), (2, 4096), (3, 13001)]:
        x, y = draw(rows, vocab, dtype=dtype), torch.arange(rows) * 31 % vocab
        for temperature in (1.0, 0.7, 1e-2):
            yield (
                f"logprob {rows} {vocab} {temperature}",
                lambda t, x=x, y=y, temperature=temperature: logprob(x, y, temperature, twin=t),
            )


def gathers(dtype: torch.dtype) -> Iterator[Case]:
    for vocab, width in [(1, 1), (11, 40), (300, 1500)]:
        w, ids = draw(vocab, width, dtype=dtype), torch.arange(6) * 7 % vocab
        yield f"embed {vocab} {width}", lambda t, w=w, ids=ids: embed(ids, w, twin=t)


def digests(dtype: torch.dtype) -> Iterator[Case]:
    for rows, width in [(1, 1), (3, 100), (2, 3000)]:
        x = draw(rows, width, dtype=dtype)
        yield f"digest {rows} {width}", lambda t, x=x: row_digest(x, twin=t)


OPERATIONS = [linears, norms, ropes, activations, logprobs, gathers, digests]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cases", OPERATIONS)
def test_twin_and_kernel_have_the_same_bits(
    cases: Callable[[torch.dtype], Iterator[Case]], dtype: torch.dtype
) -> None:
    for name, compute in cases(dtype):
        with launch.record() as interpreted:
            kernel = compute(False)
        with launch.record() as vectorised:
            twin = compute(True)
        assert differing(twin, kernel) == 0, name
        # Otherwise the twin would have been compared with itself.
        assert interpreted.counts.total() >= 1, name
        assert vectorised.counts.total() == 0, name


def test_tables_have_the_same_bits() -> None:
    positions = torch.cat([torch.arange(200), torch.tensor([4096, 99_999, 2**31])])
    f = 1e6 ** -(torch.arange(32) / 32)
    for a, b in zip(tables(positions, f), tables(positions, f, twin=True), strict=True):
        assert differing(a, b) == 0


def test_a_wrong_order_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Controls: the comparison above goes red for twins that add in another order."""
    x, w = draw(5, 70), draw(20, 70, seed=1)
    blocks = linear_twin._block
    monkeypatch.setattr(linear_twin, "_block", lambda a, b: blocks(a[::-1], b[::-1]))
    assert differing(linear(x, w, order=ORDER), linear(x, w, order=ORDER, twin=True)) > 0

    def pairwise(values: object, axis: int) -> object:
        return values.cumsum(axis=axis).take(-1, axis=axis)  # type: ignore[attr-defined] # ndarray

    monkeypatch.setattr("kvparity_kernels.norm.twin.tree_sum", pairwise)
    x, w = draw(20, 2048), draw(2048, seed=1)
    assert differing(rms_norm(x, w, 1e-6), rms_norm(x, w, 1e-6, twin=True)) > 0
    monkeypatch.setattr("kvparity_kernels.logprob.twin.tree_sum", pairwise)
    # Flat rows: elsewhere one large exponential hides the order of the others.
    logits, targets = (
        torch.rand(20, 1000, generator=torch.Generator().manual_seed(0)),
        torch.arange(20),
    )
    assert differing(logprob(logits, targets, 1.0), logprob(logits, targets, 1.0, twin=True)) > 0


@pytest.mark.parametrize("bound", [1, 7, 64])
def test_blocks_of_the_linear_twin_change_no_bit(
    bound: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, w = draw(6, 50), draw(15, 50, seed=1)
    full = linear(x, w, order=ORDER, twin=True)
    monkeypatch.setattr(linear_twin, "ACCUMULATOR", bound)
    for products in (1, 100, 10_000):
        monkeypatch.setattr(linear_twin, "PRODUCTS", products)
        assert differing(linear(x, w, order=ORDER, twin=True), full) == 0


def test_outputs_are_poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that does not run leaves nothing that could pass for a result."""
    monkeypatch.setattr(launch, "launch", lambda *_, **__: None)
    for cases in OPERATIONS:
        for dtype in DTYPES:
            for name, compute in cases(dtype):
                y = compute(False)
                poison = y.isnan() if y.is_floating_point() else y == arguments.SENTINEL
                assert poison.all(), name


def test_a_float64_step_in_a_twin_is_refused() -> None:
    with pytest.raises(TypeError, match="the array has dtype float64, expected float32"):
        arguments.from_numpy(draw(3).double().numpy(), torch.float32)
