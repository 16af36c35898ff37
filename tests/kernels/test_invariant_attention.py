"""torch's scaled_dot_product_attention under invariant(): right, and the same for every split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from kvparity_kernels import invariant
from kvparity_kernels.overrides import NotInvariantError, attention

CONTEXTS = (torch.inference_mode, torch.no_grad)
"""In the one the whole operation is seen, in the other the backend that torch chose."""


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def qkv(queries: int, keys: int, heads: tuple[int, int] = (4, 2), **more: Any) -> list[Tensor]:
    sizes = ((heads[0], queries), (heads[1], keys), (heads[1], keys))
    return [draw(2, h, n, 16, seed=i, **more) for i, (h, n) in enumerate(sizes)]


def bits_differ(a: Tensor, b: Tensor) -> int:
    assert a.shape == b.shape
    return int((a.contiguous().view(torch.uint8) != b.contiguous().view(torch.uint8)).sum())


BAND = torch.ones(7, 9, dtype=torch.bool).tril(2) & torch.ones(7, 9, dtype=torch.bool).triu(-1)
CALLS: dict[str, dict[str, Any]] = {
    "all keys": {},
    "causal, from the upper left": {"is_causal": True},
    "bool mask": {"attn_mask": BAND},
    "float mask": {"attn_mask": torch.where(BAND, 0.0, torch.finfo(torch.float32).min)},
    "bias": {"attn_mask": draw(2, 4, 7, 9, seed=9)},
    "scale": {"scale": 0.7},
    "a row without keys": {"attn_mask": BAND & (torch.arange(7)[:, None] > 0)},
}


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("call", CALLS)
def test_it_is_attention(call: str, dtype: torch.dtype, context: Callable[[], Any]) -> None:
    q, k, v = qkv(7, 9, dtype=dtype)
    wide = [x.double() for x in (q, k, v)]
    given = dict(CALLS[call])
    exact = {n: x.double() if n == "attn_mask" and x.is_floating_point() else x
             for n, x in given.items()}  # fmt: skip
    expected = scaled_dot_product_attention(*wide, enable_gqa=True, **exact)
    if "attn_mask" in given and given["attn_mask"].is_floating_point():
        given["attn_mask"] = given["attn_mask"].to(dtype)
        if call == "bias":
            exact["attn_mask"] = given["attn_mask"].double()
            expected = scaled_dot_product_attention(*wide, enable_gqa=True, **exact)
    with context(), invariant() as report:
        found = scaled_dot_product_attention(q, k, v, enable_gqa=True, **given)
    assert found.dtype == dtype
    # Sums of 16 and 9 products in float32, an exponential, and one rounding to the dtype.
    unit = torch.finfo(dtype).eps / 2 + 32 * 2.0**-24
    assert (found.double() - expected).abs().max() < unit * v.double().abs().max() * 4
    assert any("scaled_dot_product" in name for name in report.overridden)


def rows_alone(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """Each row with the keys that it sees and no others, as a decoding step has them."""
    batches = []
    for b in range(len(q)):
        each = [
            scaled_dot_product_attention(
                q[b : b + 1, :, t : t + 1],
                k[b : b + 1, :, seen[b, t]],
                v[b : b + 1, :, seen[b, t]],
                enable_gqa=True,
            )
            for t in range(q.shape[2])
        ]
        batches.append(torch.cat(each, dim=2))
    return torch.cat(batches)


N = 45
AT = torch.arange(N)
CAUSAL = AT[None, :] <= AT[:, None]
PATTERNS = {
    "causal": CAUSAL.expand(2, N, N),
    "window": (CAUSAL & (AT[None, :] > AT[:, None] - 19)).expand(2, N, N),
    "pads on the left": torch.stack([CAUSAL, CAUSAL & (AT >= 13)]) | torch.eye(N).bool(),
    "gaps": (CAUSAL & (AT % 3 > 0)).expand(2, N, N) | torch.eye(N).bool(),
}


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_row_alone_has_the_bits_it_has_among_others(
    pattern: str, dtype: torch.dtype, context: Callable[[], Any]
) -> None:
    q, k, v = qkv(N, N, dtype=dtype)
    seen = PATTERNS[pattern]
    with context(), invariant():
        whole = scaled_dot_product_attention(q, k, v, seen[:, None], enable_gqa=True)
        least = torch.where(seen[:, None], 0.0, torch.finfo(dtype).min).to(dtype)
        added = scaled_dot_product_attention(q, k, v, least, enable_gqa=True)
        alone = rows_alone(q, k, v, seen)
        assert bits_differ(whole, alone) == 0
        assert bits_differ(added, alone) == 0
        if pattern == "causal":
            flag = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            assert bits_differ(flag, alone) == 0


def test_keys_left_where_they_are_would_move_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: without putting the visible keys first, the gaps between them decide.

    (A shift of all of them does not: lanes are added by their distance.)
    """
    pattern = "gaps"
    masked = attention._masked
    monkeypatch.setattr(attention, "_masked", lambda *given: (masked(*given)[0], None))
    q, k, v = qkv(N, N)
    with torch.inference_mode(), invariant():
        whole = scaled_dot_product_attention(q, k, v, PATTERNS[pattern][:, None], enable_gqa=True)
        assert bits_differ(whole, rows_alone(q, k, v, PATTERNS[pattern])) > 0


def test_torchs_own_moves_bits() -> None:
    """The control of the test above: what it holds is not true without the mode."""
    q, k, v = qkv(N, N)
    with torch.inference_mode():
        whole = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        assert bits_differ(whole, rows_alone(q, k, v, PATTERNS["causal"])) > 0


BACKENDS: dict[str, tuple[Any, ...]] = {
    "_scaled_dot_product_flash_attention_for_cpu": (0.0, True),
    "_scaled_dot_product_flash_attention": (0.0, True),
    "_scaled_dot_product_efficient_attention": (None, True, 0.0, True),
    "_scaled_dot_product_cudnn_attention": (None, True, 0.0, True),
}


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_is_answered_alike(name: str) -> None:
    q, k, v = qkv(7, 7, heads=(2, 2))
    operation = getattr(torch.ops.aten, name)
    with torch.inference_mode(), invariant() as report:
        found = operation(q, k, v, *BACKENDS[name])
        expected = scaled_dot_product_attention(q, k, v, is_causal=True)
    assert report.overridden[name] == 1
    assert len(found) == len(operation.default._schema.returns)
    assert bits_differ(found[0], expected) == 0
    scores = (q.double() @ k.double().mT / 4).masked_fill(~CAUSAL[:7, :7], -torch.inf)
    assert (found[1].double() - scores.logsumexp(-1)).abs().max() < 1e-5


def test_what_cannot_be_answered_says_what_to_set() -> None:
    q, k, v = qkv(3, 3, heads=(2, 2))
    for strict in (True, False):
        with torch.inference_mode(), invariant(strict=strict):
            with pytest.raises(NotInvariantError, match=r"dropout \(0\.5\).*model\.eval\(\)"):
                scaled_dot_product_attention(q, k, v, dropout_p=0.5)
            with pytest.raises(NotInvariantError, match="call scaled_dot_product_attention"):
                torch.ops.aten._flash_attention_forward(
                    q, k, v, None, None, 3, 3, 0.0, False, False
                )
    wide = [x.double() for x in (q, k, v)]
    with torch.inference_mode(), invariant(), pytest.raises(NotInvariantError, match="float64"):
        scaled_dot_product_attention(*wide)
    q.requires_grad_()
    with invariant():
        out = scaled_dot_product_attention(q, k, v)
        with pytest.raises(NotInvariantError, match="backward"):
            out.sum().backward()
