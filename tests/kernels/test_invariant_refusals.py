"""What the mode refuses and counts, and how it ends."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own short name
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

import kvparity_kernels
from kvparity_kernels.overrides import NotInvariantError
from kvparity_kernels.overrides.guard import paused

invariant = kvparity_kernels.invariant
W = torch.randn(37, 45, generator=torch.Generator().manual_seed(1))


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def differing(a: Tensor, b: Tensor) -> int:
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    view = {8: torch.int64, 4: torch.int32, 2: torch.int16}[a.element_size()]
    return int((a.contiguous().view(view) != b.contiguous().view(view)).sum())


@pytest.mark.parametrize(
    ("name", "call"),
    {
        "cumsum": lambda x: x.cumsum(-1),
        "var": lambda x: x.var(-1),
        "native_layer_norm": lambda x: F.layer_norm(x, (6,)),
        "convolution": lambda x: F.conv1d(x, torch.ones(4, 4, 3)),
        "logsumexp": lambda x: x.logsumexp(-1),
        "linalg_vector_norm": lambda x: x.norm(dim=-1),
        "prod": lambda x: x.prod(-1),
        "index_put": lambda x: x.index_put((torch.tensor([0, 0]),), x[:2], accumulate=True),
        "scatter_add": lambda x: x.scatter_add(0, torch.zeros(2, 6, dtype=torch.int64), x),
        "scatter": lambda x: x.scatter(0, torch.zeros(2, 6, dtype=torch.int64), x, reduce="add"),
        "avg_pool2d": lambda x: F.avg_pool1d(x[None], 2),
        "embedding_bag": lambda x: F.embedding_bag(torch.tensor([[0, 1]]), x),
        "std": lambda x: x.std(),
        "linspace": lambda x: torch.linspace(0, 1, 7, dtype=x.dtype),
        "logsumexp of int": lambda x: x.int().logsumexp(-1),
        "cumsum of int": lambda x: x.int().cumsum(-1, dtype=torch.float32),
        "mm of float64": lambda x: x.double() @ x.double().t(),
    }.items(),
)
@pytest.mark.filterwarnings("ignore:The reduce argument")
def test_other_reductions_are_refused_or_counted(name: str, call: Any) -> None:
    x = draw(4, 6)
    with invariant(), pytest.raises(NotInvariantError, match="strict=False"):
        call(x)
    wanted = call(x)
    with invariant(strict=False) as report:
        assert differing(call(x), wanted) == 0
    (counted,) = report.passed
    assert name.partition(" ")[0] in counted
    assert report.passed[counted] == 1


def test_what_adds_no_floats_is_left_alone() -> None:
    x = draw(4, 6)
    with invariant() as report:
        torch.ones(4, 4, dtype=torch.int64).cumsum(0)
        torch.ones(4, 4, dtype=torch.int64).sum().item()
        torch.multinomial(x.softmax(-1), 1)
        x.amax(-1), x.argmax(), x.topk(2), x.sort(), x.max(-1), (x > 0).any()
        torch.cat([x, x])[torch.tensor([0, 3])].clone().tril().to(torch.bfloat16)
        x.index_put((torch.tensor([0]),), x[:1])
        torch.arange(7, dtype=torch.float32)
    assert set(report.overridden) == {"_softmax"}
    assert not report.passed


def test_an_operation_of_somebody_else_is_refused() -> None:
    library = torch.library.Library("kvparity_test", "DEF")
    library.define("reduce(Tensor x) -> Tensor")
    library.impl("reduce", lambda x: x.clone(), "CPU")
    x = draw(3)
    with invariant(), pytest.raises(NotInvariantError, match="not an operation of torch's"):
        torch.ops.kvparity_test.reduce(x)
    with invariant(strict=False) as report:
        torch.ops.kvparity_test.reduce(x)
    assert list(report.passed.values()) == [1]


def test_the_math_backend_is_products_and_a_softmax() -> None:
    q, k, v = draw(3, 1, 2, 5, 16)
    with invariant() as report, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        full = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        for t in range(5):
            one = F.scaled_dot_product_attention(
                q[:, :, t : t + 1], k[:, :, : t + 1], v[:, :, : t + 1]
            )
            assert differing(one, full[:, :, t : t + 1]) == 0
    assert report.overridden["bmm"] == 12


def test_all_is_as_before_afterwards() -> None:
    threads, depth = torch.get_num_threads(), len(_get_current_dispatch_mode_stack())
    plain = draw(3, 45).mm(W.t())
    try:
        torch.set_num_threads(2)
        with pytest.raises(IndexError), invariant(), invariant():
            [][torch.get_num_threads() - 1]
        with invariant():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert len(_get_current_dispatch_mode_stack()) == depth
    with invariant() as report:
        draw(3, 45).cos()
    assert draw(3, 45).cos().shape == (3, 45)
    assert sum(report.even.values()) == 1
    assert differing(draw(3, 45).mm(W.t()), plain) == 0


def test_nesting() -> None:
    with invariant() as outer, invariant() as inner:
        assert inner is outer
        with (
            pytest.raises(RuntimeError, match=r"strict=False\) inside invariant\(strict=True"),
            invariant(strict=False),
        ):
            pass
        assert draw(2, 2).mm(draw(2, 2)).shape == (2, 2)
    assert outer.overridden["mm"] == 1
    with invariant(strict=False):
        pass


def test_a_second_thread_is_refused() -> None:
    errors: list[str] = []

    def enter() -> None:
        try:
            with invariant():
                errors.append("entered")
        except RuntimeError as error:
            errors.append(str(error))

    def run() -> None:
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()

    with invariant():
        run()
    run()
    assert "on in another thread" in errors[0]
    assert errors[1:] == ["entered"]


def test_a_decorator_and_a_pause() -> None:
    @invariant()
    def product(x: Tensor) -> Tensor:
        """Multiply."""
        with paused():
            x.cumsum(0)  # would be refused
        return x.mm(W.t())

    assert product.__name__ == "product"
    x = draw(9, 45)
    assert differing(product(x)[:1], product(x[:1])) == 0
    with invariant() as report:
        product(x)
        with pytest.raises(NotInvariantError):
            x.cumsum(0)
        assert report.overridden == {"mm": 1}
        with paused():
            with invariant():  # asked for again inside a callback
                x.mm(W.t())
            x.cumsum(0)
    assert report.overridden == {"mm": 2}
    with paused():  # nothing to pause
        x.cumsum(0)


def test_compiled_functions_are_computed_eagerly() -> None:
    """A graph that was compiled before cannot hide its reductions."""
    compiled = torch.compile(lambda x: x.softmax(-1), backend="eager")
    x = draw(3, 45)
    compiled(x)
    with invariant() as report:
        compiled(x)
    assert report.overridden["_softmax"] == 1


def test_the_name_is_the_packages() -> None:
    assert kvparity_kernels.invariant is invariant
    with pytest.raises(AttributeError, match="has no attribute 'variant'"):
        kvparity_kernels.variant  # noqa: B018 - raises
