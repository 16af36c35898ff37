"""Ways of computing attention: ours, ours with other splits, SDPA's backends, FlashInfer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from kvparity.labs.bench.calls import ORDER, OURS, Call, Calls, TileChoice, drawn, tiled, with_tiles
from kvparity.labs.bench.cases import ModelShape, TimedCase

if TYPE_CHECKING:
    from kvparity.pairs.flashinfer import Cut, PlannedAttention

from kvparity_kernels.attention import attend_decode, attend_prefill
from kvparity_kernels.keys import KeysValues

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
SPLITS = (64, 128, 256, 512, 1024, 2048)
"""Keys of a split that a scheduler might choose among; the order's own is ``ours``."""

Plan = Callable[[], "PlannedAttention"]


def decode(case: TimedCase, shape: ModelShape, device: str, choice: TileChoice) -> Calls:
    """One query of each sequence, over contiguous caches of equal lengths."""
    batch, keys = case.size("batch"), case.size("keys")
    q = drawn(shape, device, batch, shape.query, shape.dim)
    k, v = (drawn(shape, device, batch, keys, shape.kv, shape.dim) for _ in "kv")
    kv = KeysValues(
        k.flatten(0, 1),
        v.flatten(0, 1),
        torch.full((batch,), keys, dtype=torch.int32, device=device),
        starts=torch.arange(batch, device=device) * keys,
    )
    scale = shape.dim**-0.5

    def ours(split: int = ORDER.split) -> Call:
        order = replace(ORDER, split=split)
        return lambda: attend_decode(q, kv, max_kv=keys, scale=scale, order=order)[0]

    splits = {
        f"{OURS} split {split}": tiled(ours(split), choice.tiles)
        for split in SPLITS
        if split != ORDER.split and split <= keys
    }
    views = (q[:, :, None], k.transpose(1, 2), v.transpose(1, 2))
    return {
        **with_tiles(ours(), choice, lambda t: (t.decode_block_m, t.decode_warps, t.skip_hidden)),
        **splits,
        **_sdpa(views, scale, None, to=lambda x: x[:, :, 0]),
        "sdpa efficient grouped": _grouped(q, k, v, scale),
        **_flashinfer_decode(q, k, v, scale),
    }


def prefill(case: TimedCase, shape: ModelShape, device: str, choice: TileChoice) -> Calls:
    """The last rows of one sequence."""
    rows, keys = case.size("rows"), case.size("keys")
    q = drawn(shape, device, rows, shape.query, shape.dim)
    k, v = (drawn(shape, device, keys, shape.kv, shape.dim) for _ in "kv")
    zero = torch.zeros(1, dtype=torch.int64, device=device)
    q_starts, q_lens = zero.int(), torch.full((1,), rows, dtype=torch.int32, device=device)
    kv = KeysValues(k, v, torch.full_like(q_lens, keys), starts=zero)
    scale = shape.dim**-0.5

    def ours() -> Tensor:
        return attend_prefill(
            q, kv, q_starts=q_starts, q_lens=q_lens, max_q=rows, scale=scale, order=ORDER
        )[0]

    views = tuple(x.transpose(0, 1)[None] for x in (q, k, v))
    return {
        **with_tiles(ours, choice, lambda t: (t.prefill_block_m, t.prefill_warps, t.skip_hidden)),
        **_sdpa(views, scale, (rows, keys), to=lambda x: x[0].transpose(0, 1)),
        **_flashinfer_prefill(q, k, v, scale),
    }


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

    return {"sdpa": call, **{f"sdpa {name}": _through(name, call) for name in BACKENDS}}


def _through(backend: str, call: Call) -> Call:
    def chosen() -> Tensor:
        with sdpa_kernel(BACKENDS[backend]):
            return call()

    return chosen


def _grouped(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Call:
    """The heads of a group as queries of one head: for a backend that shares no key heads.

    It reads each key once, where repeating key heads would read it for every query head.
    """
    batch, _, kv_heads, dim = k.shape
    grouped = q.view(batch, kv_heads, -1, dim)
    views = (grouped, k.transpose(1, 2), v.transpose(1, 2))
    return _through(
        "efficient",
        lambda: scaled_dot_product_attention(*views, scale=scale).reshape(batch, -1, dim),
    )


def _flashinfer_decode(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Calls:
    """FlashInfer where it is installed, planned outside what is timed."""
    if not _flashinfer(q):
        return {}
    from kvparity.pairs.flashinfer import FIXED, PAGE, planned

    lengths = [k.shape[1]] * len(k)
    caches = tuple(x.reshape(-1, PAGE, *x.shape[2:]) for x in (k, v))

    def plan(cut: Cut) -> Plan:
        return lambda: planned(q, lengths, k.shape[2], k.dtype, scale, cut, workspace=_workspace())

    return {
        "flashinfer": _planned(plan({}), q, caches),
        "flashinfer fixed": _planned(plan(FIXED), q, caches),
    }


def _flashinfer_prefill(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Calls:
    """FlashInfer's prefill over pages, planned outside what is timed."""
    if not _flashinfer(q):
        return {}
    from kvparity.pairs.flashinfer import PAGE, planned

    ends = torch.tensor([0, len(q)], dtype=torch.int32, device=q.device)
    caches = tuple(x.reshape(-1, PAGE, *x.shape[1:]) for x in (k, v))

    def plan() -> PlannedAttention:
        # Its own choice of a backend, as most of its users leave it: fa3 on a Hopper.
        return planned(
            q, [len(k)], k.shape[1], k.dtype, scale, {},
            ends=ends, workspace=_workspace(), backend="auto",
        )  # fmt: skip

    return {"flashinfer": _planned(plan, q, caches)}


def _flashinfer(q: Tensor) -> bool:
    return q.device.type == "cuda" and find_spec("flashinfer") is not None


@cache
def _workspace() -> Tensor:
    """One for all: no two of the wrappers run at once."""
    from kvparity.pairs.flashinfer import WORKSPACE_BYTES

    return torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device="cuda")


def _planned(plan: Plan, q: Tensor, caches: tuple[Tensor, ...]) -> Call:
    """Planned at the first call, so that a failure to plan is reported for this way alone."""
    made: list[PlannedAttention] = []

    def call() -> Tensor:
        if not made:
            made.append(plan())
        return made[0].run(q, caches)

    return call
