"""Products as a device computes them: which reach the model, with which bits, and what is refused.

That the model's own bits are right is tested against MMA-Sim (``tests/ci/test_device_numerics``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from triton.runtime.errors import InterpreterError

from kvparity_contracts.numerics import ARCHITECTURES as ASKED
from kvparity_kernels import device_model, fixed_arithmetic, fused_products
from kvparity_kernels.device_model import Multiplied
from kvparity_kernels.launch import kernel, launch
from kvparity_kernels.linear import linear
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.overrides.watch import unwatched, watching_sums
from kvparity_kernels.relied import triton as relied
from kvparity_kernels.stream import listening
from kvparity_kernels.tensor_cores import ARCHITECTURES, Architecture, unit

# isort: split
import triton.language as tl

SIDE = 16


@kernel
def product(A, B, C, N: tl.constexpr, PRECISION: tl.constexpr):
    lane = tl.arange(0, N)
    at = lane[:, None] * N + lane[None, :]
    a, b = tl.load(A + at), tl.load(B + at)
    c = tl.dot(a, b, tl.zeros((N, N), tl.float32), input_precision=PRECISION)
    tl.store(C + at, c)


def drawn(seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(seed)).to(dtype)


def multiplied(
    a: Tensor, b: Tensor, precision: str, device: Architecture | None
) -> tuple[Tensor, Counter[Multiplied]]:
    """What ``tl.dot`` gives, and what was told of it."""
    c, told = torch.empty(SIDE, SIDE), Counter[Multiplied]()
    with device_model.using(device), listening(Multiplied, lambda it: told.update([it])):
        launch(product, (1,), a, b, c, N=SIDE, PRECISION=precision)
    return c, told


def same(a: Tensor, b: np.ndarray) -> bool:
    return a.numpy().tobytes() == b.astype(np.float32).tobytes()


DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "tf32": torch.float32,
    "fp8e4nv": torch.float8_e4m3fn,
    "fp8e5": torch.float8_e5m2,
}
ROWS = [
    *((device, operand) for device in ARCHITECTURES for operand in ("bfloat16", "float16", "tf32")),
    ("sm_89", "fp8e4nv"),
    ("sm_89", "fp8e5"),
]


@pytest.mark.parametrize(("device", "operand"), ROWS)
def test_a_product_is_that_of_the_device_and_is_told(device: Architecture, operand: str) -> None:
    a, b = (drawn(seed, DTYPES[operand]) for seed in (0, 1))
    precision = "tf32" if operand == "tf32" else "ieee"
    found, told = multiplied(a, b, precision, device)
    given = (a.float().numpy(), b.float().numpy(), np.zeros((SIDE, SIDE), np.float32))
    assert same(found, fused_products.dot(*given, operand, unit(device, operand)))
    assert not same(found, fixed_arithmetic.dot(*given))
    assert told == Counter([Multiplied(device, operand)])
    plain, untold = multiplied(a, b, precision, None)
    assert same(plain, fixed_arithmetic.dot(*given))
    assert not untold


def test_float32_is_a_chain_of_fused_multiply_adds_on_every_device() -> None:
    a, b = drawn(0), drawn(1)
    chain = np.zeros((SIDE, SIDE), np.float32)
    for k in range(SIDE):
        chain = fixed_arithmetic.fma(a.numpy()[:, k, None], b.numpy()[k], chain)
    for device in ARCHITECTURES:
        found, told = multiplied(a, b, "ieee", device)
        assert same(found, chain)
        assert told == Counter([Multiplied(device, "float32")])
    assert not same(found, fixed_arithmetic.dot(a.numpy(), b.numpy(), np.zeros_like(chain)))


def _halfway() -> tuple[np.ndarray, np.ndarray]:
    """An odd number, and a product a little less than half its last place: float64 says half."""
    last = 2.0**-23
    a = np.array([[1 + last, last / 2 * (1 + last)]], np.float32)
    return a, np.array([[1, 1], [1 - last, 1]], np.float32)


def _subnormal() -> tuple[np.ndarray, np.ndarray]:
    """The same where the last place is that of subnormal numbers, 2^-149."""
    small, last = 2.0**-75, 2.0**-23
    a = np.array([[2.0**-64 * (1 + 2 * last), small * (1 + last)]], np.float32)
    return a, np.array([[2.0**-63, 2.0**-63], [small * (1 - last), small]], np.float32)


def _special() -> tuple[np.ndarray, np.ndarray]:
    a, b = (np.random.default_rng(s).standard_normal((8, 8)).astype(np.float32) for s in (0, 1))
    a[0, 3], b[3, 2], a[1] = np.inf, -np.inf, np.nan
    return a, b


@pytest.mark.parametrize("given", [_halfway, _subnormal, _special])
def test_fused_multiply_adds_are_rounded_once(
    given: Callable[[], tuple[np.ndarray, np.ndarray]],
) -> None:
    a, b = given()
    with np.errstate(all="ignore"):
        wanted = np.zeros((len(a), b.shape[1]), np.float32)
        for k in range(a.shape[1]):
            wanted = fixed_arithmetic.fma(a[:, k, None], b[k], wanted)
        twice = np.zeros_like(wanted)
        for k in range(a.shape[1]):
            wide = np.float64(a[:, k, None]) * np.float64(b[k]) + np.float64(twice)
            twice = wide.astype(np.float32)
    found = fixed_arithmetic.fma_dot(a, b, np.zeros_like(wanted))
    assert found.tobytes() == wanted.tobytes()
    if given is not _special:
        assert twice.tobytes() != wanted.tobytes()  # or nothing was tried


@pytest.mark.parametrize("device", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_twin_of_linear_follows(device: Architecture, dtype: torch.dtype) -> None:
    x, w = (drawn(seed).reshape(4, 64)[:, :40].contiguous().to(dtype) for seed in (0, 1))
    bias = drawn(2, dtype)[0, :4]

    def found(twin: bool) -> Tensor:
        order = ReductionOrder(block_m=16, linear_k=16)
        return linear(x, w, bias, order=order, out_dtype=torch.float32, twin=twin)

    plain = found(True)
    with device_model.using(device):
        assert torch.equal(found(True), found(False))
        assert not torch.equal(found(True), plain)
    assert torch.equal(found(True), plain)


@pytest.mark.parametrize(
    ("device", "left", "right", "words"),
    [
        ("sm_80", "fp8e5", "fp8e5", "products of fp8e5 on sm_80 are not modelled"),
        ("sm_90", "fp8e4nv", "fp8e4nv", "mma.sync with these operands is not in the table"),
        ("sm_89", "fp8e4nv", "fp8e5", "products of fp8e4nv and fp8e5 on sm_89 are not modelled"),
    ],
)
def test_what_is_not_modelled_is_an_error(
    device: Architecture, left: str, right: str, words: str
) -> None:
    with pytest.raises(InterpreterError, match=words):
        multiplied(drawn(0, DTYPES[left]), drawn(1, DTYPES[right]), "ieee", device)


@kernel
def scaled(A, B, C):
    rows, lanes = tl.arange(0, 16), tl.arange(0, 32)
    a = tl.load(A + rows[:, None] * 32 + lanes[None, :])
    b = tl.load(B + lanes[:, None] * 16 + rows[None, :])
    one = tl.full((16, 1), 127, tl.uint8)
    c = tl.dot_scaled(a, one, "e5m2", b, one, "e5m2")
    tl.store(C + rows[:, None] * 16 + rows[None, :], c)


@pytest.mark.skipif(relied.scaled_dot() is None, reason="this Triton does not interpret it")
def test_a_scaled_product_is_an_error() -> None:
    a, b = (drawn(s).repeat(1, 2).to(torch.float8_e5m2).view(torch.uint8) for s in (0, 1))
    c = torch.empty(SIDE, SIDE)
    launch(scaled, (1,), a, b, c)
    assert c.isfinite().all()
    words = r"tl\.dot_scaled on sm_90 is not modelled"
    with device_model.using("sm_90"), pytest.raises(InterpreterError, match=words):
        launch(scaled, (1,), a, b, c)


def test_float64_is_an_error_and_integers_are_exact() -> None:
    ones = np.ones((2, 2))
    with device_model.using("sm_90"):
        with pytest.raises(NotImplementedError, match="products of float64 on sm_90"):
            device_model.dot(ones, ones, ones, "float64")
        whole = ones.astype(np.int8)
        assert (device_model.dot(whole, whole, whole.astype(np.int32), "int8") == 3).all()


def test_contracts_name_the_architectures_of_the_table() -> None:
    assert ASKED == ARCHITECTURES


def _sums(x: Tensor) -> Iterator[tuple[str, Callable[[], object], bool]]:
    batch, rows = x[None, None], torch.tensor([0, 1, 1])
    yield "a product", lambda: x @ x, True
    yield "batched", lambda: torch.bmm(batch[0], batch[0]), True
    yield "einsum", lambda: torch.einsum("ij,jk->ik", x, x), True
    yield "attention", lambda: scaled_dot_product_attention(batch, batch, batch), True
    yield "into a given tensor", lambda: torch.mm(x, x, out=torch.empty(SIDE, SIDE)), True
    yield "complex", lambda: x.to(torch.complex64) @ x.to(torch.complex64), True
    yield "a solver", lambda: torch.linalg.eigvalsh(x), True
    yield "a sum", lambda: (x * x).sum(-1), True
    yield "a norm", lambda: torch.linalg.vector_norm(x), True
    yield "in place", lambda: torch.empty(SIDE, SIDE).addmm_(x, x, beta=0), True
    yield "a transform", lambda: torch.fft.fft(x), True
    yield "into places", lambda: x.index_put((rows,), x[:3], accumulate=True), True
    yield "set into places", lambda: x.index_put((rows,), x[:3]), False
    yield "put", lambda: x.clone().put_(rows, x[0, :3].clone(), True), True
    yield "scattered", lambda: x.scatter(0, rows[None], 1.0, reduce="add"), True
    yield "set by scattering", lambda: x.scatter(0, rows[None], x[:1].clone()), False
    yield "counted", lambda: torch.bincount(rows, weights=x[0, :3]), True
    yield "a loss", lambda: torch.nn.functional.mse_loss(x, x + 1), True
    yield "elementwise", lambda: (x * x + x).exp(), False
    yield "a maximum", lambda: x.max(), False
    yield "whole numbers", lambda: x.long().sum(), False


@pytest.mark.parametrize("recorded", [True, False], ids=["", "inference"])
@pytest.mark.parametrize("name", [name for name, *_ in _sums(torch.zeros(SIDE, SIDE))])
def test_sums_of_torch_are_seen(name: str, recorded: bool) -> None:
    """Also where no gradient could be asked for, as subjects run: ``@`` is one call there."""
    call, seen = next((call, seen) for each, call, seen in _sums(drawn()) if each == name)
    with torch.inference_mode(not recorded), watching_sums() as found:
        call()
        assert bool(found) is seen
    with torch.inference_mode(not recorded), watching_sums() as found, unwatched():
        call()
    assert not found
