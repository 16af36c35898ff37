"""FlashInfer: its wrappers over pages, or without pages its functions of a single sequence.

A wrapper's class is named, or what makes one of ``(workspace, "NHD")``; it is planned and run.
Nothing asks for its LSE, which is to base 2.
"""

from __future__ import annotations

from functools import cache
from typing import Protocol, cast

import torch
from torch import Tensor

from kvparity.subjects.attention_calls import PairDecodeCall, PairPrefillCall, ask
from kvparity.subjects.pair.callables import Kernel
from kvparity.subjects.pair.signatures.packed import PagedKeys
from kvparity.subjects.pair.signatures.parts import BySequence, put

WORKSPACE_BYTES = 128 << 20  # what FlashInfer's documentation allots


class Wrapper(Protocol):
    """What is planned, then run."""

    plan: Kernel
    run: Kernel


def prefill(kernel: Kernel, page: int, call: PairPrefillCall, out: Tensor | None = None) -> object:
    """Rows of all sequences at once over pages, else a call for each sequence."""
    if page:
        keys = PagedKeys.packed(call, page)
        return _planned(kernel, call, keys, out, call.cu_seqlens_q, causal=call.causal)
    parts = BySequence.of_prefill(call)
    for span in parts.spans:
        given = parts.rows(span), span.k, span.v
        put(parts.at(span), ask(kernel, *given, causal=call.causal, **_rules(call)))
    return parts.out


def decode(kernel: Kernel, page: int, call: PairDecodeCall, out: Tensor | None = None) -> object:
    """One row of each sequence: at once over pages, else a call for each."""
    if page:
        return _planned(kernel, call, PagedKeys.of(call), out)
    parts = BySequence.of_decode(call)
    for span in parts.spans:
        found = ask(kernel, parts.rows(span)[0], span.k, span.v, **_rules(call))
        put(parts.at(span)[0], found)
    return parts.out


def _planned(
    kernel: Kernel,
    call: PairPrefillCall | PairDecodeCall,
    keys: PagedKeys,
    out: Tensor | None,
    *rows: Tensor,
    **more: object,
) -> object:
    """A wrapper's answer. ``rows``: offsets, where it takes any number of each sequence."""
    q, page = call.q, keys.k.shape[1]
    wrapper = cast(Wrapper, ask(kernel, _workspace(q.device), "NHD"))
    last = (keys.lens - 1) % page + 1
    ask(
        wrapper.plan, *rows, *keys.indices(), last, q.shape[1], keys.k.shape[2], q.shape[2], page,
        q_data_type=q.dtype, kv_data_type=keys.k.dtype, **_rules(call), **more,
    )  # fmt: skip
    given = {"out": out, "sinks": call.sinks}
    asked = {name: each for name, each in given.items() if each is not None}
    return ask(wrapper.run, q, (keys.k, keys.v), **asked)


@cache
def _workspace(device: torch.device) -> Tensor:
    """One for all wrappers: no two of them run at once."""
    return torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=device)


def _rules(call: PairPrefillCall | PairDecodeCall) -> dict[str, object]:
    """What all take of a contract; ``window_left`` counts keys before the row's own."""
    found: dict[str, object] = {"sm_scale": call.scale}
    if call.window:
        found["window_left"] = call.window - 1
    if call.softcap:
        found["logits_soft_cap"] = call.softcap
    return found
