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
    storages = {x.untyped_storage().data_ptr() for x in given}
    return out.clone() if out.untyped_storage().data_ptr() in storages else out


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
def _(
    x: Tensor, w: Tensor, bias: object, order: object, out_dtype: torch.dtype | None, twin: bool
) -> Tensor:
    return x.new_empty((x.shape[0], w.shape[0]), dtype=out_dtype or x.dtype)


@torch.library.custom_op("kvparity::rms_norm", mutates_args=())
def _rms_norm(x: Tensor, w: Tensor, eps: float, twin: bool = False) -> Tensor:
    return _fresh(_bound.get()[1].rms_norm(x, w, eps, twin=twin), x)


@_rms_norm.register_fake
def _(x: Tensor, w: Tensor, eps: float, twin: bool) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("kvparity::rotate", mutates_args=())
def _rotate(x: Tensor, cos: Tensor, sin: Tensor, twin: bool = False) -> Tensor:
    return _fresh(_bound.get()[1].rotate(x, cos, sin, twin=twin), x)


@_rotate.register_fake
def _(x: Tensor, cos: Tensor, sin: Tensor, twin: bool) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("kvparity::swiglu", mutates_args=())
def _swiglu(gate: Tensor, up: Tensor, twin: bool = False) -> Tensor:
    return _fresh(_bound.get()[1].swiglu(gate, up, twin=twin), gate, up)


@_swiglu.register_fake
def _(gate: Tensor, up: Tensor, twin: bool) -> Tensor:
    return gate.new_empty(gate.shape)


@torch.library.custom_op("kvparity::embed", mutates_args=())
def _embed(ids: Tensor, w: Tensor, twin: bool = False) -> Tensor:
    return _fresh(_bound.get()[1].embed(ids, w, twin=twin), w)


@_embed.register_fake
def _(ids: Tensor, w: Tensor, twin: bool) -> Tensor:
    return w.new_empty((ids.shape[0], w.shape[1]))


# KeysValues and calls taken apart. An operator takes no optional groups, so what is not given is
# None, 0 or the empty string.


@torch.library.custom_op("kvparity::attend", mutates_args=())
def _attend(
    q: Tensor, k: Tensor, v: Tensor, kv_lens: Tensor, starts: Tensor | None,
    block_table: Tensor | None, page: int, ring: int, store: str, k_scale: Tensor | None,
    v_scale: Tensor | None, scale: float, order: Sequence[int], window: int, softcap: float,
    sinks: Tensor | None, first_key: Tensor | None, q_starts: Tensor | None,
    q_lens: Tensor | None, most: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """``q_starts``, ``q_lens``: of prefill alone; ``most``: its ``max_q``, or ``max_kv``."""
    stored = StoreFormat.parse(store) if store else None
    kv = KeysValues(k, v, kv_lens, starts, block_table, page, stored, k_scale, v_scale, ring)
    attention, reduction = _bound.get()[0], ReductionOrder(*order)
    if q_starts is None or q_lens is None:
        return attention.decode(
            DecodeCall(
                q=q, kv=kv, max_kv=most, scale=scale, order=reduction, window=window,
                softcap=softcap, sinks=sinks, first_key=first_key,
            )
        )  # fmt: skip
    return attention.prefill(
        PrefillCall(
            q=q, kv=kv, q_starts=q_starts, q_lens=q_lens, max_q=most, scale=scale,
            order=reduction, window=window, softcap=softcap, sinks=sinks, first_key=first_key,
        )
    )  # fmt: skip


@_attend.register_fake
def _(q: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:2], dtype=torch.float32)


def _attending(
    call: PrefillCall | DecodeCall, q_starts: Tensor | None, q_lens: Tensor | None, most: int
) -> Outputs:
    kv = call.kv
    found: Outputs = _attend(
        call.q, kv.k, kv.v, kv.kv_lens, kv.starts, kv.block_table, kv.page, kv.ring,
        "" if kv.format is None else str(kv.format), kv.k_scale, kv.v_scale, call.scale,
        astuple(call.order), call.window, call.softcap, call.sinks, call.first_key, q_starts,
        q_lens, most,
    )  # fmt: skip
    return found


def _prefill(call: PrefillCall) -> Outputs:
    return _attending(call, call.q_starts, call.q_lens, call.max_q)


def _decode(call: DecodeCall) -> Outputs:
    return _attending(call, None, None, call.max_kv)


def _project(
    x: Tensor, w: Tensor, bias: Tensor | None = None, *, order: ReductionOrder,
    out_dtype: torch.dtype | None = None, twin: bool = False,
) -> Tensor:  # fmt: skip
    found: Tensor = _linear(x, w, bias, astuple(order), out_dtype, twin)
    return found


ATTENTION = AttentionOps(prefill=_prefill, decode=_decode)
"""The attention of a model that is traced."""

OPS = Ops(linear=_project, rms_norm=_rms_norm, rotate=_rotate, swiglu=_swiglu, embed=_embed)
"""What a traced model computes with beside attention."""
