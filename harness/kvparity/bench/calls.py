"""Every way of computing a case, as functions without arguments over fresh random data.

``ours`` is this project's kernel; the others compute the same numbers in whatever order they like.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from kvparity.bench.cases import Case, Shape
from kvparity_kernels.attention import attend_decode, attend_prefill
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.linear import linear
from kvparity_kernels.logprob import logprob
from kvparity_kernels.order import ReductionOrder

Call = Callable[[], Tensor]
Calls = dict[str, Call]
OURS = "ours"
ORDER = ReductionOrder()
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


def calls(case: Case, shape: Shape, device: str) -> Calls:
    """All ways of computing ``case``, on inputs of their own."""
    make = {
        "decode": _decode,
        "prefill": _prefill,
        "chunked": _prefill,
        "linear": _linear,
        "logprob": _logprob,
    }
    return make[case.what](case, shape, device)


def _drawn(shape: Shape, device: str, *sizes: int) -> Tensor:
    return torch.randn(*sizes, device=device).to(getattr(torch, shape.dtype))


def _decode(case: Case, shape: Shape, device: str) -> Calls:
    batch, keys = case.size("batch"), case.size("keys")
    q = _drawn(shape, device, batch, shape.query, shape.dim)
    k, v = (_drawn(shape, device, batch, keys, shape.kv, shape.dim) for _ in "kv")
    kv = KeysValues(
        k.flatten(0, 1),
        v.flatten(0, 1),
        torch.full((batch,), keys, dtype=torch.int32, device=device),
        starts=torch.arange(batch, device=device) * keys,
    )
    scale = shape.dim**-0.5

    def ours() -> Tensor:
        return attend_decode(q, kv, max_kv=keys, scale=scale, order=ORDER)[0]

    views = (q[:, :, None], k.transpose(1, 2), v.transpose(1, 2))
    others = _sdpa(views, scale, None, to=lambda x: x[:, :, 0])
    return {OURS: ours, **others, **_flashinfer_decode(q, k, v, scale)}


def _prefill(case: Case, shape: Shape, device: str) -> Calls:
    rows, keys = case.size("rows"), case.size("keys")
    q = _drawn(shape, device, rows, shape.query, shape.dim)
    k, v = (_drawn(shape, device, keys, shape.kv, shape.dim) for _ in "kv")
    zero = torch.zeros(1, dtype=torch.int64, device=device)
    q_lens = torch.full((1,), rows, dtype=torch.int32, device=device)
    kv = KeysValues(k, v, torch.full_like(q_lens, keys), starts=zero)
    scale = shape.dim**-0.5

    def ours() -> Tensor:
        return attend_prefill(
            q, kv, q_starts=zero.int(), q_lens=q_lens, max_q=rows, scale=scale, order=ORDER
        )[0]

    views = tuple(x.transpose(0, 1)[None] for x in (q, k, v))
    return {OURS: ours, **_sdpa(views, scale, (rows, keys), to=lambda x: x[0].transpose(0, 1))}


def _sdpa(
    views: Sequence[Tensor],
    scale: float,
    causal: tuple[int, int] | None,
    to: Callable[[Tensor], Tensor],
) -> Calls:
    q, k, v = views
    square = causal is not None and causal[0] == causal[1]
    # With fewer queries than keys is_causal would align the mask at the start.
    bias = causal_lower_right(*causal) if causal is not None and not square else None

    def call() -> Tensor:
        return to(
            scaled_dot_product_attention(
                q, k, v, attn_mask=bias, is_causal=square, scale=scale, enable_gqa=True
            )
        )

    def with_backend(backend: SDPBackend) -> Call:
        def chosen() -> Tensor:
            with sdpa_kernel(backend):
                return call()

        return chosen

    return {"sdpa": call, **{f"sdpa {n}": with_backend(b) for n, b in BACKENDS.items()}}


def _flashinfer_decode(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Calls:
    """FlashInfer where it is installed, planned outside what is timed."""
    if q.device.type != "cuda" or find_spec("flashinfer") is None:
        return {}
    from kvparity.pairs.flashinfer import FIXED, PAGE, planned_decode

    lengths = [k.shape[1]] * len(k)
    caches = tuple(x.reshape(-1, PAGE, *x.shape[2:]) for x in (k, v))

    def way(cut: dict[str, Any]) -> Call:
        wrapper = planned_decode(q, lengths, k.shape[2], k.dtype, scale, cut)
        return lambda: wrapper.run(q, caches)

    return {"flashinfer": way({}), "flashinfer fixed": way(FIXED)}


def _linear(case: Case, shape: Shape, device: str) -> Calls:
    x = _drawn(shape, device, case.size("rows"), case.size("k"))
    w = _drawn(shape, device, case.size("n"), case.size("k"))
    return {
        OURS: lambda: linear(x, w, None, order=ORDER),
        "torch": lambda: torch.nn.functional.linear(x, w),
    }


def _logprob(case: Case, shape: Shape, device: str) -> Calls:
    rows, vocab = case.size("rows"), case.size("vocab")
    logits = torch.randn(rows, vocab, device=device)
    targets = torch.randint(vocab, (rows,), device=device)
    return {
        OURS: lambda: logprob(logits, targets, 1.0),
        "torch": lambda: torch.log_softmax(logits, -1).gather(1, targets[:, None])[:, 0],
    }
