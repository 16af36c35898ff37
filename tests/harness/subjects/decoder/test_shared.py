"""Layers that share a cache, sinks and softcaps: one function on every path."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from decoder_cases import decoder, differing, forward, ids_of, one, prompts, run, span

from kvparity.plan.schedule import Member
from kvparity.subjects.attention_calls import DecodeCall, Outputs, PrefillCall
from kvparity.subjects.decoder import layers
from kvparity.subjects.decoder.cache import KVCache
from kvparity.subjects.decoder.session import DecoderSession
from kvparity.subjects.decoder.subject import DecoderSubject
from kvparity_kernels.keys import KeysValues

SHARED: dict[str, Any] = {
    "layers": 5,
    "sliding_window": 8,
    "layer_types": ("sliding", "full", "sliding", "full", "sliding"),
    "kv_shared_layers": 2,
}


def held(session: DecoderSession) -> KVCache:
    cache = session.cache()
    assert cache is not None
    return cache


def test_followers_read_the_last_layer_of_their_type() -> None:
    shape = decoder(**SHARED).model.config
    found = layers.layers_of(shape)
    assert [layer.stored for layer in found] == [0, 1, 2, 1, 2]
    assert [layer.follower for layer in found] == [False] * 3 + [True] * 2
    assert [layer.window for layer in found] == [8, 0, 8, 0, 8]
    nothing = layers.layers_of(decoder(**SHARED | {"kv_shared_layers": 0}).model.config)
    assert [layer.stored for layer in nothing] == list(range(5))
    assert not any(layer.follower for layer in nothing)


@pytest.mark.parametrize(("store", "narrow"), [("float32", 8), ("fp8_e4m3(head)", 0)])
def test_shared_layers_are_the_same_on_every_path(store: str, narrow: int) -> None:
    given = prompts(9, generate=3)
    which = decoder(store, ring=True, **SHARED, shared_head_dim=narrow)
    reference = run(which, "prefill", given)
    for path in ("decode", "chunked(4)", "uncached"):
        assert differing(run(which, path, given), reference) == [], path
    weights = which.model.weights.layers
    # 8 query heads beside 2 of keys and 2 of values, of 16 each; a follower has queries alone.
    assert [len(layer.qkv) for layer in weights] == [192] * 3 + [8 * (narrow or 16)] * 2
    assert [layer.k_norm is None for layer in weights] == [False] * 3 + [True] * 2


def test_followers_write_nothing() -> None:
    session = decoder(**SHARED).session(*one(12))
    forward(session, (span(0, 9),), ids_of(session.members))
    cache = held(session)
    assert cache.layers() == 3
    assert [cache.owner(layer) for layer in range(5)] == [0, 1, 2, 1, 2]
    with pytest.raises(IndexError):
        cache.read(3, 0, 0, 1)


class Donors:
    """Which stored layer's content each attention call was given."""

    def __init__(self, which: DecoderSubject) -> None:
        self.session = which.session(*one(12))
        self.seen: list[int] = []

    def look(self, kv: KeysValues) -> None:
        cache = held(self.session)
        matches = [
            number
            for number in range(cache.layers())
            if kv.k.nan_to_num().equal(cache.k[number].codes.nan_to_num())
        ]
        assert len(matches) == 1
        self.seen += matches


def test_followers_are_given_their_owner_by_content() -> None:
    which = decoder(**SHARED)

    def watched(call: PrefillCall) -> Outputs:
        donors.look(call.kv)
        return which.attention.prefill(call)

    watching = which.with_attention(replace(which.attention, prefill=watched))
    donors = Donors(watching)
    forward(donors.session, (span(0, 9),), ids_of(donors.session.members))
    assert donors.seen == [0, 1, 2, 1, 2]


def test_a_softcap_and_sinks_matter_and_agree() -> None:
    given = prompts(18, generate=3)
    extras: dict[str, Any] = {"attention_softcap": 3.0, "attention_sinks": True}
    rows = {}
    for name in ("attention_softcap", "attention_sinks"):
        which = decoder(sliding_window=6, **{name: extras[name]})
        rows[name] = run(which, "prefill", given)
        assert differing(run(which, "decode", given), rows[name]) == []
    plain = run(decoder(sliding_window=6), "prefill", given)
    for found in rows.values():
        assert len(differing(found, plain)) == 3
    sinks = decoder(attention_sinks=True, layers=2).model.weights.layers[1].sinks
    assert sinks is not None
    assert sinks.shape == (8,)
    assert ((sinks > -1) & (sinks < 3)).all()


def test_every_feature_is_close_to_float64() -> None:
    given = prompts(20, generate=3)
    which = decoder(
        **SHARED, shared_head_dim=10, attention_softcap=4.0, attention_sinks=True, ring=True
    )
    member = Member("a", 23, 20)
    exact = which.oracle(member, ids_of((member,))[0], range(19, 22))
    found = run(which, "decode", given)
    # Some hundred roundings to 24 bits before logits of size 5.
    assert all((found[0, 19 + i] - exact[i]).abs().max() < 5e-5 for i in range(3))
    for changes in ({"sliding_window": 7}, {"shared_head_dim": 12}, {"attention_softcap": 4.1}):
        other = replace(which.model.config, **changes)
        with_other = DecoderSubject(other, which.model.weights, kv_cache="float32")
        if "shared_head_dim" in changes:
            continue  # other weights
        wrong = with_other.oracle(member, ids_of((member,))[0], range(19, 22))
        assert (wrong - exact).abs().max() > 1e-3, changes


# Controls


def test_a_follower_that_reads_another_owner_is_seen() -> None:
    given = prompts(12, generate=3)
    which = decoder(**SHARED)
    calls = iter(range(10**6))

    def decode(call: DecodeCall) -> Outputs:
        number = next(calls) % 5
        if number in (0, 1):
            kept[number] = call.kv
        # Layer 4 should read layer 2, of the same type.
        wrong = kept[0] if number == 4 else call.kv
        return which.attention.decode(replace(call, kv=wrong))

    kept: dict[int, KeysValues] = {}
    planted = which.with_attention(replace(which.attention, decode=decode))
    reference = run(which, "prefill", given)
    assert differing(run(planted, "decode", given), reference) == [(0, 12), (0, 13)]
