"""torch: ``scaled_dot_product_attention`` for prefill and decode alike.

Sequences of one length are one call, as a padded batch without pads is. What it has no keyword for
(a chunk behind a prefix, a window, a bias) is its ``attn_mask``; what adds to scores is float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kvparity.subjects.attention_calls import PairDecodeCall, PairPrefillCall, ask
from kvparity.subjects.pair.callables import Kernel
from kvparity.subjects.pair.signatures.packed import sides
from kvparity.subjects.pair.signatures.parts import BySequence, SequenceCall, put

Call = PairPrefillCall | PairDecodeCall


def prefill(kernel: Kernel, page: int, call: PairPrefillCall, out: Tensor | None = None) -> object:
    """Rows of sequences as long as each other at once."""
    return _by_length(kernel, call, BySequence.of_prefill(call))


def decode(kernel: Kernel, page: int, call: PairDecodeCall, out: Tensor | None = None) -> object:
    """A row of each of the sequences with as many keys at once."""
    return _by_length(kernel, call, BySequence.of_decode(call))


def _by_length(kernel: Kernel, call: Call, parts: BySequence) -> object:
    alike: dict[tuple[int, int], list[SequenceCall]] = {}
    for span in parts.spans:
        alike.setdefault((span.rows, span.keys), []).append(span)
    for (rows, keys), spans in alike.items():
        q, k, v = (
            torch.stack(x).transpose(1, 2)
            for x in zip(*((parts.rows(each), each.k, each.v) for each in spans), strict=True)
        )
        whole = parts.out.new_empty(*q.shape[:3], v.shape[-1])
        put(whole, ask(kernel, q, k, v, **_keywords(call, rows, keys)))
        for span, own in zip(spans, whole, strict=True):
            parts.at(span).copy_(own.transpose(0, 1))
    return parts.out


def _keywords(call: Call, rows: int, keys: int) -> dict[str, object]:
    """Of a group of sequences with so many rows and keys each."""
    found: dict[str, object] = {"scale": call.scale}
    if call.q.shape[1] != call.k.shape[-2]:
        found["enable_gqa"] = True
    biased = call.alibi_slopes is not None or call.bias is not None
    before, behind = sides(call)
    if not (biased or before >= 0 or behind >= 0) and (rows in (1, keys) or not call.causal):
        return found | ({"is_causal": True} if call.causal and rows > 1 else {})
    own = torch.arange(keys - rows, keys, device=call.q.device)[:, None]
    ahead = torch.arange(keys, device=call.q.device) - own
    hidden = ahead > 0 if call.causal else torch.zeros_like(ahead, dtype=torch.bool)
    if before >= 0:
        hidden = hidden | (ahead < -before)
    if behind >= 0:
        hidden = hidden | (ahead > behind)
    if not biased:
        return found | {"attn_mask": ~hidden}
    added = torch.zeros(call.q.shape[1], rows, keys, device=call.q.device)
    if call.alibi_slopes is not None:
        added = added - call.alibi_slopes[:, None, None] * ahead.abs()
    if call.bias is not None:
        added = added + call.bias[:, ahead.abs().clamp(max=call.bias.shape[1] - 1)]
    return found | {"attn_mask": added.masked_fill(hidden, float("-inf"))}
