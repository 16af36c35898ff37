"""Every override on odd shapes: torch's shape and dtype, and close to float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own short name

from kvparity_kernels import invariant
from kvparity_kernels.launch import record
from kvparity_kernels.overrides import attention, experts, reductions
from kvparity_kernels.overrides.mode import FixedOrder, functional, names
from kvparity_kernels.overrides.report import InvariantReport, NotInvariantError
from kvparity_kernels.overrides.rows import matmul, row_sum, softmax

aten = torch.ops.aten
INF, NAN = math.inf, math.nan
Call = Callable[[Callable[[Tensor], Tensor]], Any]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def reduced() -> Iterator[tuple[str, Call]]:
    x = draw(3, 5, 7)
    shapes = {"whole": x, "turned": x.permute(2, 0, 1), "none": x[:0], "no columns": x[..., :0]}
    dims: list[Any] = [None, (), 0, -1, (2, 0), (-1, -3)]
    for kind, y in shapes.items():
        for i, dim in enumerate(dims):
            keep = bool(i % 2)
            yield f"sum {kind} {dim} {keep}", lambda to, y=y, d=dim, k=keep: to(y).sum(d, k)
            yield f"mean {kind} {dim} {keep}", lambda to, y=y, d=dim, k=not keep: to(y).mean(d, k)
        for dim in (0, 1, -1):
            yield f"softmax {kind} {dim}", lambda to, y=y, d=dim: to(y).softmax(d)
            yield f"log softmax {kind} {dim}", lambda to, y=y, d=dim: to(y).log_softmax(d)
    one = torch.tensor(2.5)
    for name in ("sum", "mean"):
        yield f"{name} of one", lambda to, n=name: getattr(to(one), n)()
        yield f"{name} of one by dim", lambda to, n=name: getattr(to(one), n)(0)
    yield "softmax of one", lambda to: to(one).softmax(0)
    shut = draw(4, 6).index_fill(0, torch.tensor([1]), -INF)
    for dim in (0, -1):
        yield f"safe softmax {dim}", lambda to, d=dim: aten._safe_softmax(to(shut), d)
    for shape in ((7,), (5, 7)):
        w = draw(*shape, seed=1)
        for eps in (None, 1e-2):
            yield f"norm {shape} {eps}", lambda to, s=shape, e=eps: F.rms_norm(to(x), s, None, e)
            yield (
                f"norm {shape} {eps} by weight",
                lambda to, s=shape, w=w, e=eps: F.rms_norm(to(x), s, to(w), e),
            )


def multiplied() -> Iterator[tuple[str, Call]]:
    for m, k, n in ((1, 1, 1), (0, 5, 3), (3, 0, 2), (3, 5, 0), (65, 33, 17), (2, 7, 65)):
        a, b, c = draw(m, k), draw(n, k, seed=1).t(), draw(n, seed=2)
        size = f"{m}x{k}x{n}"
        yield f"mm {size}", lambda to, a=a, b=b: to(a).mm(to(b))
        yield f"mv {size}", lambda to, a=a, b=b: to(a).mv(to(b[:, :1].sum(1)))
        yield f"linear {size}", lambda to, a=a, b=b: F.linear(to(a), to(b.t()))
        yield f"linear {size} bias", lambda to, a=a, b=b, c=c: F.linear(to(a), to(b.t()), to(c))
        yield f"linear of 3 {size}", lambda to, a=a, b=b: F.linear(to(a)[None], to(b.t()))
        if m and n:
            yield f"linear of 1 {size}", lambda to, a=a, b=b: F.linear(to(a)[0], to(b.t()))
            yield f"dot {size}", lambda to, a=a, b=b: torch.dot(to(a)[0], to(b)[:, 0])
            yield f"vdot {size}", lambda to, a=a, b=b: torch.vdot(to(a)[0], to(b)[:, 0])
        added = {"n": c, "1": draw(1), "mn": draw(m, n, seed=3), "1n": c[None], "m1": draw(m, 1)}
        for name, d in added.items():
            for beta, alpha in ((1, 1), (0.5, 1), (1, 3), (0, 2), (2, 0.5), (2, 2)):
                yield (
                    f"addmm {size} {name} {beta} {alpha}",
                    lambda to, a=a, b=b, d=d, s=beta, t=alpha: torch.addmm(
                        to(d), to(a), to(b), beta=s, alpha=t
                    ),
                )
        batch = draw(2, m, k)
        w = draw(2, n, k, seed=1).mT
        yield f"bmm {size}", lambda to, a=batch, b=w: to(a).bmm(to(b))
        yield (
            f"baddbmm {size}",
            lambda to, a=batch, b=w, c=c: torch.baddbmm(to(c), to(a), to(b), beta=2, alpha=0.5),
        )
        yield (
            f"addmv {size}",
            lambda to, a=a, b=b: torch.addmv(
                to(draw(len(a), seed=4)), to(a), to(b[:, :1].sum(1)), beta=0.5, alpha=2
            ),
        )


def attended() -> Iterator[tuple[str, Call]]:
    def sdpa(to: Any, q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Tensor:
        own = {n: to(x) if isinstance(x, Tensor) and x.dtype != torch.bool else x
               for n, x in more.items()}  # fmt: skip
        return F.scaled_dot_product_attention(to(q), to(k), to(v), **own)

    band = torch.ones(3, 5, dtype=torch.bool).tril(1) & (torch.arange(5) != 2)
    shut = torch.where(band, 0.0, -INF).index_fill(0, torch.tensor([1]), -INF)
    masks: dict[str, dict[str, Any]] = {
        "none": {}, "bool": {"attn_mask": band}, "corner": {"is_causal": True},
        "float": {"attn_mask": torch.where(band, 0.5, -INF)}, "row shut": {"attn_mask": shut},
        "keys": {"attn_mask": torch.arange(5)[None] > 1}, "scale": {"scale": 0.3},
    }  # fmt: skip
    for lead in ((), (2,), (2, 3)):
        q, k, v = (draw(*lead, n, 4, seed=i) for i, n in enumerate((3, 5, 5)))
        for name, more in masks.items():
            yield f"{lead} {name}", lambda to, q=q, k=k, v=v, m=more: sdpa(to, q, k, v, **m)
    q, k, v = draw(3, 6, 3, 4), draw(3, 2, 5, 4, seed=1), draw(3, 2, 5, 9, seed=2)
    yield "grouped, no batch", lambda to: sdpa(to, q[0], k[0], v[0], enable_gqa=True)
    yield "no heads", lambda to: sdpa(to, q[:, :0], k[:, :0], v[:, :0])
    yield "grouped", lambda to: sdpa(to, q, k, v, enable_gqa=True)
    yield "grouped bool", lambda to: sdpa(to, q, k, v, enable_gqa=True, attn_mask=band)
    yield "no row", lambda to: sdpa(to, q[:, :2, :0], k, v)


GROUPS = {"reduced": reduced, "multiplied": multiplied, "attended": attended}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("group", GROUPS)
def test_odd_shapes_are_torchs_and_close_to_float64(group: str, dtype: torch.dtype) -> None:
    near = {torch.float32: 1e-5, torch.bfloat16: 2.0**-7}[dtype]
    for name, call in GROUPS[group]():
        wide = call(lambda x: x.to(dtype).double())
        plain = call(lambda x: x.to(dtype))
        with torch.inference_mode(), invariant() as report:
            found = call(lambda x: x.to(dtype))
        assert (found.shape, found.dtype) == (plain.shape, dtype), name
        assert torch.allclose(found.double(), wide, rtol=near, atol=near, equal_nan=True), name
        assert sum(report.overridden.values()) >= 1, name
        assert not report.passed


def test_a_term_that_counts_for_nothing_is_not_looked_at() -> None:
    a, b, nothing = draw(2, 3), draw(3, 4), torch.full((4,), NAN)
    with invariant():
        for alpha in (1, 2):
            assert torch.addmm(nothing, a, b, beta=0, alpha=alpha).isfinite().all()


@pytest.mark.parametrize("backward", [torch.float16, torch.bfloat16], ids=str)
def test_results_in_float32_are_rounded_once(backward: torch.dtype) -> None:
    a, b = draw(3, 33).to(backward), draw(33, 5, seed=1).to(backward)
    product, wide = a.double() @ b.double(), a.double()
    exact = [product] * 3 + [wide.softmax(-1), wide.log_softmax(-1), wide.sum(0), wide.mean()]
    with invariant():
        found = [
            aten.mm.dtype(a, b, torch.float32),
            aten.bmm.dtype(a[None], b[None], torch.float32)[0],
            experts.grouped_mm(a, b[None], torch.tensor([3]), None, torch.float32),
            aten._softmax(a, -1, True),
            aten._log_softmax(a, -1, True),
            a.sum(0, dtype=torch.float32),
            a.mean(dtype=torch.float32),
        ]
        assert torch.arange(5).sum(dtype=torch.float32) == 10
        assert reductions.safe_softmax(a, -1, torch.float32).dtype == torch.float32
    for one, other in zip(found, exact, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one.double(), other, rtol=2e-6, atol=2e-6)


def test_the_parts_of_a_norm_are_torchs() -> None:
    x, w = draw(3, 5, 7), draw(7, seed=1)
    y, inverse = reductions.fused_rms_norm(x.bfloat16(), (7,), w.bfloat16(), None)
    wide = x.bfloat16().double()
    exact = 1 / (wide.square().mean(-1, keepdim=True) + torch.finfo(torch.float32).eps).sqrt()
    assert (y.dtype, inverse.dtype, inverse.shape) == (torch.bfloat16, torch.float32, (3, 5, 1))
    torch.testing.assert_close(inverse.double(), exact, rtol=1e-6, atol=0)


def test_what_the_backends_return_beside_the_rows() -> None:
    q, k, v = draw(2, 3, 4), draw(2, 5, 4, seed=1), draw(2, 5, 4, seed=2)
    band = torch.ones(3, 5, dtype=torch.bool).tril(-1)  # the first row sees nothing
    scores = (q.double() @ k.double().mT / 2).masked_fill(~band, -INF)
    out, lse = attention.flash_for_cpu(q, k, v, attn_mask=band)
    torch.testing.assert_close(lse.double(), scores.logsumexp(-1), rtol=1e-6, atol=1e-6)
    assert bool((lse[:, 0] == -INF).all())
    assert not bool(out[:, 0].any())
    for found in (attention.flash(q, k, v), attention.cudnn(q, k, v, None, True)):
        assert found[2:6] == (None, None, 3, 5)
        assert [x.tolist() for x in found[6:]] == [[0, 0], [], []]  # type: ignore[union-attr]
    assert [int(x) for x in attention.efficient(q, k, v, None, True)[2:]] == [0, 0]
    nothing, least = attention.flash_for_cpu(q, k[:, :0], v[:, :0])
    assert not bool(nothing.any())
    assert least.tolist() == [[-INF] * 3] * 2


def added(x: Tensor, dim: int, index: list[int], source: Tensor) -> Tensor:
    """One row after the other."""
    out = x.clone()
    for place, row in enumerate(index):
        out.select(dim, row).add_(source.select(dim, place))
    return out


@pytest.mark.parametrize("index", [[], [0], [3, 3, 3], [2, 0, 2, 1, 0, 2], [3, 2, 1, 0]], ids=str)
def test_rows_are_added_one_after_the_other(index: list[int]) -> None:
    for dim in (0, 1, -1):
        x, source = draw(4, 4), draw(4, 4, seed=1).repeat(2, 2)
        own = source.narrow(dim, 0, len(index)).narrow(1 - dim % 2, 0, 4)
        places = torch.tensor(index, dtype=torch.int64)
        assert torch.equal(experts.index_add(x, dim, places, own), added(x, dim, index, own))
        half = experts.index_add(x, dim, places, own, alpha=0.5)
        assert torch.equal(half, added(x, dim, index, own * 0.5))
    one = experts.index_add(torch.tensor(1.0), 0, torch.tensor([0]), torch.tensor(2.0))
    assert (one.shape, float(one)) == ((), 3.0)


@pytest.mark.parametrize("offs", [[0, 0, 0], [4, 4, 4], [0, 3, 3], [1, 2, 6], [6, 6, 6]], ids=str)
def test_groups_of_any_size_are_multiplied(offs: list[int]) -> None:
    a, b = draw(7, 5), draw(3, 5, 4, seed=1)
    found = experts.grouped_mm(a, b, torch.tensor(offs))
    wanted = torch.zeros(7, 4, dtype=torch.float64)
    for row in range(offs[-1]):
        wanted[row] = a[row].double() @ b[sum(row >= stop for stop in offs)].double()
    torch.testing.assert_close(found.double(), wanted, rtol=2e-6, atol=2e-6)
    assert not bool(found[offs[-1] :].any())


@pytest.mark.parametrize("twin", [True, False])
def test_twins_launch_nothing_and_kernels_do(twin: bool) -> None:
    x = draw(2, 3)
    with record() as log:
        row_sum(x, twin=twin)
        softmax(x, twin=twin)
        matmul(x[None], x.t()[None], twin=twin)
    names = () if twin else ("overrides.matmul", "overrides.row_sum", "overrides.softmax")
    assert log.counts == dict.fromkeys(names, 1)


@pytest.mark.parametrize(
    ("operation", "name", "base", "plain"),
    [
        (aten.add.Tensor, "add.Tensor", "add", aten.add.Tensor),
        (aten.add_.Tensor, "add.Tensor", "add", aten.add.Tensor),
        (aten.exp.default, "exp", "exp", aten.exp.default),
        (aten.exp_.default, "exp", "exp", aten.exp.default),
        (aten.exp.out, "exp", "exp", aten.exp.default),
        (aten.lerp.Scalar_out, "lerp.Scalar", "lerp", aten.lerp.Scalar),
        (aten.add.out, "add", "add", aten.add.Tensor),
        (aten.div.out_mode, "div.out_mode", "div", aten.div.Tensor_mode),
        (aten.__lshift__.Scalar, "__lshift__.Scalar", "__lshift__", aten.__lshift__.Scalar),
        (aten.__ilshift__.Scalar, "__ilshift__.Scalar", "__ilshift__", None),
        (aten.frexp.Tensor_out, "frexp.Tensor", "frexp", aten.frexp.Tensor),
    ],
    ids=str,
)
def test_operations_have_a_name_and_a_plain_form(
    operation: Any, name: str, base: str, plain: Any
) -> None:
    assert names.__wrapped__(operation) == (name, base)
    assert functional.__wrapped__(operation) is plain


def test_results_are_put_where_they_are_wanted() -> None:
    x, out = draw(5), torch.empty(0)
    for call in (
        lambda **more: torch.add(x, x, alpha=3, **more),
        lambda **more: torch.sub(x, x, alpha=0.5, **more),
        lambda **more: torch.div(x, x + 2, rounding_mode="floor", **more),
        lambda **more: torch.exp(x, **more),
    ):
        with invariant() as report:
            assert call(out=out) is out
            assert torch.equal(out, call())
        assert sum(report.even.values()) == 2


def test_what_has_no_plain_form_is_refused() -> None:
    with invariant(), pytest.raises(NotInvariantError, match="has no plain form to compute"):
        aten.__ilshift__.Scalar(draw(3), 1)


def test_a_log_sum_exp_does_not_follow_its_place() -> None:
    q, k, v = draw(1, 201, 4), draw(1, 9, 4, seed=1), draw(1, 9, 4, seed=2)
    whole = attention.flash_for_cpu(q, k, v)[1]
    for row in range(0, 201, 8):
        assert torch.equal(attention.flash_for_cpu(q[:, row : row + 1], k, v)[1], whole[:, [row]])


def test_a_dispatch_without_keywords_is_taken() -> None:
    mode = FixedOrder(InvariantReport(), strict=True, planted={})
    assert mode.__torch_dispatch__(aten.mm.default, (), (draw(2, 3), draw(3, 2))).shape == (2, 2)


def test_what_is_known_to_add_is_told_from_what_may() -> None:
    with invariant():
        with pytest.raises(NotInvariantError, match="cumsum adds in an order of torch's own"):
            draw(3).cumsum(0)
        with pytest.raises(NotInvariantError, match="linspace is not known here and may add in"):
            torch.linspace(0, 1, 7)
