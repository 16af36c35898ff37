"""The pairs that orders are probed with: what a decoder's own attention is given through them."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from decoder_cases import ORDER, decoder
from torch import Tensor

from kvparity.relations.order.decoder import attentions_of
from kvparity.relations.order.sides import Side
from kvparity.subjects.attention_calls import DecodeCall, PrefillCall
from kvparity.subjects.base import UnsupportedError
from kvparity.subjects.decoder.backends import Backends
from kvparity.subjects.decoder.read_back import keys_read
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.store import decode as decoded


@pytest.mark.parametrize(
    ("types", "windows"),
    [
        (None, {"": 0}),
        (("full", "full"), {"": 0}),
        (("sliding", "sliding"), {"": 8}),
        (("sliding", "full"), {"sliding layers": 8, "full layers": 0}),
        (("full", "sliding"), {"full layers": 0, "sliding layers": 8}),
    ],
)
def test_each_kind_of_layer_has_a_pair_in_the_order_of_the_layers(types, windows):
    more = {} if types is None else {"layer_types": types, "layers": 2}
    if types and "sliding" in types:
        more["sliding_window"] = 8
    found = attentions_of(decoder(**more))
    assert {kind: each.window for kind, each in found.items()} == windows
    assert list(found) == list(windows)
    (one, *_) = found.values()
    assert attentions_of(one) == {"": one}


def test_what_has_no_attention_of_its_own_is_refused():
    with pytest.raises(UnsupportedError, match="cannot be called alone"):
        attentions_of(SimpleNamespace(model=decoder().model))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("store", "told"),
    [("float32", None), ("int8(8)", "int8(8)"), ("fp8_e4m3(head)", "fp8_e4m3(head)")],
)
def test_the_pair_has_the_decoders_format_and_order(store, told):
    (found,) = attentions_of(decoder(store)).values()
    assert (found.format and str(found.format)) == told
    assert found.order == ORDER


def test_in_whose_order_a_library_adds_is_not_declared():
    which = copy(decoder())
    which.backends = Backends(attention="sdpa-math")
    (found,) = attentions_of(which).values()
    assert found.order is None


@pytest.mark.parametrize("lse", [True, False])
@pytest.mark.parametrize("keys", [3, 7, 8, 9, 21])
@pytest.mark.parametrize(
    ("store", "ring"),
    [("float32", True), ("int8(8)", True), ("fp8_e4m3(head)", True), ("int8(8)", False)],
)
def test_the_decoders_attention_reads_what_the_pair_is_given(store, ring, keys, lse):
    """Of a ring the keys of the window, whose places they took last; of all others every key."""
    seen: dict[str, tuple[list[Tensor], Tensor, PrefillCall | DecodeCall]] = {}

    def spy(name):
        def kernel(call):
            q, kv = call.q, call.kv
            first = max(0, keys - 8) if kv.ring else 0
            read = [keys_read(kv, b, first, keys, q.dtype) for b in range(2)]
            seen[name] = [torch.stack(x) for x in zip(*read, strict=True)], kv.kv_lens, call
            assert kv.ring == (8 if ring and name == "decode" else 0)
            return q * 2, torch.zeros(len(q), q.shape[1] * lse)

        return kernel

    rules = {"sliding_window": 8, "layer_types": ("sliding",)}
    base = decoder(store, ring=ring, **rules)
    ops = replace(base.attention, prefill=spy("prefill"), decode=spy("decode"))
    (pair,) = attentions_of(base.with_attention(ops)).values()
    given: dict[str, tuple[Tensor, Tensor]] = {}

    def watched(name, function):
        def kernel(call):
            plain = []
            for x, scale in ((call.k, call.k_scale), (call.v, call.v_scale)):
                if call.format is not None:
                    flat = scale if scale.dim() == 1 else scale.flatten(0, -3)
                    x = decoded(x.flatten(0, -3), flat, call.format, call.q.dtype)
                plain.append(x.float().reshape(2, keys, x.shape[-2], -1))
            given[name] = (plain[0], plain[1])
            return function(call)

        return kernel

    pair = replace(
        pair,
        pair=replace(
            pair.pair,
            prefill=watched("prefill", pair.pair.prefill),
            decode=watched("decode", pair.pair.decode),
        ),
    )
    for which, rows in (("decode", 1), ("prefill", 2)):
        side = Side(pair, which, keys=keys, batch=2, rows=rows)
        found = side.random(torch.Generator().manual_seed(0))
        assert (found.lse is not None) == lse
        read, lens, call = seen[which]
        first = max(0, keys - 8) if ring and which == "decode" else 0
        for mine, other in zip(read, given[which], strict=True):
            assert torch.equal(mine, other[:, first:])
        assert lens.tolist() == [keys, keys]
        assert (call.order, call.window) == (ORDER, 8)
        most = call.max_kv if isinstance(call, DecodeCall) else call.max_q
        assert most == (keys, rows)[which == "prefill"]
    other = ReductionOrder(split=64, tile=16, block_m=16)
    for which in ("decode", "prefill"):
        Side(replace(pair, order=other), which, keys=keys, batch=2, rows=1).random(
            torch.Generator().manual_seed(0)
        )
        assert seen[which][2].order == other
        Side(replace(pair, order=None), which, keys=keys, batch=2, rows=1).random(
            torch.Generator().manual_seed(0)
        )
        assert seen[which][2].order == ORDER
