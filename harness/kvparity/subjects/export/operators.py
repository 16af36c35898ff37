"""The kernels as opaque operators, so that a tracer sees one node where a kernel is launched.

A tracer cannot look into Triton's interpreter, and need not look into a compiled kernel. Each
operator has a fake implementation, which says the shape and dtype of its result, and a real one,
which calls the function that is bound when it runs: the kernels, or what a control has put in
their place. The operators live in the namespace ``kvparity``. Importing this module registers them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor

from kvparity.subjects.attention_calls import AttentionOps, DecodeCall, Outputs, PrefillCall
from kvparity.subjects.decoder.call_log import FIXED_ORDER
from kvparity.subjects.decoder.model import Ops
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.store import StoreFormat

_KERNELS = (FIXED_ORDER, Ops())
_bound: ContextVar[tuple[AttentionOps, Ops]] = ContextVar("bound", default=_KERNELS)


@contextmanager
def bound(attention: AttentionOps, ops: Ops) -> Iterator[None]:
    """Let the operators call these functions inside."""
    token = _bound.set((attention, ops))
    try:
        yield
    finally:
        _bound.reset(token)


def _fresh(out: Tensor, *given: Tensor) -> Tensor:
    """An operator may not hand back what it was given; a planted defect may."""
    held = {x.untyped_storage().data_ptr() for x in given}
    return out.clone() if out.untyped_storage().data_ptr() in held else out


@torch.library.custom_op("kvparity::linear", mutates_args=())
def _linear(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    order: Sequence[int],
    out_dtype: torch.dtype | None,
    twin: bool,
) -> Tensor:
    call = _bound.get()[1].linear
    more = {} if out_dtype is None else {"out_dtype": out_dtype}
    return _fresh(call(x, w, bias, order=ReductionOrder(*order), twin=twin, **more), x)


@_linear.register_fake
def _(x: Tensor, w: Tensor, bias: Any, order: Any, out_dtype: Any, twin: bool) -> Tensor:
    return x.new_empty((x.shape[0], w.shape[0]), dtype=out_dtype or x.dtype)


@torch.library.custom_op("kvparity::rms_norm", mutates_args=())
def _rms_norm(x: Tensor, w: Tensor, eps: float, twin: bool) -> Tensor:
    return _fresh(_bound.get()[1].rms_norm(x, w, eps, twin=twin), x)


@_rms_norm.register_fake
def _(x: Tensor, w: Tensor, eps: float, twin: bool) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("kvparity::rotate", mutates_args=())
def _rotate(x: Tensor, cos: Tensor, sin: Tensor, twin: bool) -> Tensor:
    return _fresh(_bound.get()[1].rotate(x, cos, sin, twin=twin), x)


@_rotate.register_fake
def _(x: Tensor, cos: Tensor, sin: Tensor, twin: bool) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("kvparity::swiglu", mutates_args=())
def _swiglu(gate: Tensor, up: Tensor, twin: bool) -> Tensor:
    return _fresh(_bound.get()[1].swiglu(gate, up, twin=twin), gate, up)


@_swiglu.register_fake
def _(gate: Tensor, up: Tensor, twin: bool) -> Tensor:
    return gate.new_empty(gate.shape)


@torch.library.custom_op("kvparity::embed", mutates_args=())
def _embed(ids: Tensor, w: Tensor, twin: bool) -> Tensor:
    return _fresh(_bound.get()[1].embed(ids, w, twin=twin), w)


@_embed.register_fake
def _(ids: Tensor, w: Tensor, twin: bool) -> Tensor:
    return w.new_empty((ids.shape[0], w.shape[1]))


# What the two attention operators share: KeysValues taken apart, and what only some layers have.
# An operator takes no optional groups, so what is not given is None, 0 or the empty string.


def _cache(
    k: Tensor, v: Tensor, kv_lens: Tensor, places: tuple[Tensor | None, Tensor | None], page: int,
    ring: int, store: str, scales: tuple[Tensor | None, Tensor | None],
) -> KeysValues:  # fmt: skip
    format = StoreFormat.parse(store) if store else None
    return KeysValues(k, v, kv_lens, *places, page, format, *scales, ring)


@torch.library.custom_op("kvparity::attend_prefill", mutates_args=())
def _attend_prefill(
    q: Tensor, k: Tensor, v: Tensor, kv_lens: Tensor, starts: Tensor | None,
    block_table: Tensor | None, page: int, ring: int, store: str, k_scale: Tensor | None,
    v_scale: Tensor | None, q_starts: Tensor, q_lens: Tensor, max_q: int, scale: float,
    order: Sequence[int], window: int, softcap: float, sinks: Tensor | None,
    first_key: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    kv = _cache(k, v, kv_lens, (starts, block_table), page, ring, store, (k_scale, v_scale))
    call = PrefillCall(
        q=q, kv=kv, q_starts=q_starts, q_lens=q_lens, max_q=max_q, scale=scale,
        order=ReductionOrder(*order), window=window, softcap=softcap, sinks=sinks,
        first_key=first_key,
    )  # fmt: skip
    return _bound.get()[0].prefill(call)


@torch.library.custom_op("kvparity::attend_decode", mutates_args=())
def _attend_decode(
    q: Tensor, k: Tensor, v: Tensor, kv_lens: Tensor, starts: Tensor | None,
    block_table: Tensor | None, page: int, ring: int, store: str, k_scale: Tensor | None,
    v_scale: Tensor | None, max_kv: int, scale: float, order: Sequence[int], window: int,
    softcap: float, sinks: Tensor | None, first_key: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    kv = _cache(k, v, kv_lens, (starts, block_table), page, ring, store, (k_scale, v_scale))
    call = DecodeCall(
        q=q, kv=kv, max_kv=max_kv, scale=scale, order=ReductionOrder(*order), window=window,
        softcap=softcap, sinks=sinks, first_key=first_key,
    )  # fmt: skip
    return _bound.get()[0].decode(call)


def _attended(q: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:2], dtype=torch.float32)


_attend_prefill.register_fake(_attended)
_attend_decode.register_fake(_attended)


def _taken_apart(call: PrefillCall | DecodeCall) -> dict[str, object]:
    """What both operators take, by the names of their parameters."""
    kv = call.kv
    return {
        "q": call.q, "k": kv.k, "v": kv.v, "kv_lens": kv.kv_lens, "starts": kv.starts,
        "block_table": kv.block_table, "page": kv.page, "ring": kv.ring,
        "store": "" if kv.format is None else str(kv.format), "k_scale": kv.k_scale,
        "v_scale": kv.v_scale, "scale": call.scale, "order": astuple(call.order),
        "window": call.window, "softcap": call.softcap, "sinks": call.sinks,
        "first_key": call.first_key,
    }  # fmt: skip


def _prefill(call: PrefillCall) -> Outputs:
    found: Outputs = _attend_prefill(
        **_taken_apart(call), q_starts=call.q_starts, q_lens=call.q_lens, max_q=call.max_q
    )
    return found


def _decode(call: DecodeCall) -> Outputs:
    found: Outputs = _attend_decode(**_taken_apart(call), max_kv=call.max_kv)
    return found


def _project(
    x: Tensor, w: Tensor, bias: Tensor | None = None, *, order: ReductionOrder,
    out_dtype: torch.dtype | None = None, twin: bool = False,
) -> Tensor:  # fmt: skip
    found: Tensor = _linear(x, w, bias, astuple(order), out_dtype, twin)
    return found


def _normed(x: Tensor, w: Tensor, eps: float, *, twin: bool = False) -> Tensor:
    found: Tensor = _rms_norm(x, w, eps, twin)
    return found


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, *, twin: bool = False) -> Tensor:
    found: Tensor = _rotate(x, cos, sin, twin)
    return found


def _gated(gate: Tensor, up: Tensor, *, twin: bool = False) -> Tensor:
    found: Tensor = _swiglu(gate, up, twin)
    return found


def _embedded(ids: Tensor, w: Tensor, *, twin: bool = False) -> Tensor:
    found: Tensor = _embed(ids, w, twin)
    return found


ATTENTION = AttentionOps(prefill=_prefill, decode=_decode)
"""The attention of a model that is traced."""

OPS = Ops(linear=_project, rms_norm=_normed, rotate=_rotated, swiglu=_gated, embed=_embedded)
"""What a traced model computes with beside attention."""
