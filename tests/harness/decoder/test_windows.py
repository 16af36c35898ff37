"""Windows, rings, layers that share a cache, sinks and softcaps: one function on every path."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from decoder_cases import (
    decoder,
    differing,
    forward,
    ids_of,
    one,
    plan,
    prompts,
    run,
    span,
)  # fmt: skip
from torch import Tensor

from kvparity.decoder import layers
from kvparity.decoder.cache import KVCache
from kvparity.decoder.reading import unrolled
from kvparity.decoder.session import DecoderSession
from kvparity.order.decoder import attention_of
from kvparity.schedule import Layout, Member
from kvparity.subject import SubjectError, UnsupportedError
from kvparity.subjects.decoder import DecoderSubject
from kvparity_kernels.keys import KeysValues

MIXED: dict[str, Any] = {
    "layers": 2, "sliding_window": 8, "layer_types": ("sliding", "full")
}  # fmt: skip
SHARED: dict[str, Any] = {
    "layers": 5,
    "sliding_window": 8,
    "layer_types": ("sliding", "full", "sliding", "full", "sliding"),
    "kv_shared_layers": 2,
}


# Lengths around one and two windows; streamed(n) writes chunks across the place where a ring wraps.
@pytest.mark.parametrize(
    ("length", "ring"), [(7, True), (8, True), (9, True), (17, True), (9, False), (17, False)]
)
def test_a_window_is_the_same_on_every_path(length: int, ring: bool) -> None:
    given = prompts(length, generate=3)
    plain, which = decoder(**MIXED), decoder(ring=ring, **MIXED)
    reference = run(plain, "prefill", given)
    paths = (
        ("prefill", "decode", "chunked(3)", "streamed(5)") if ring else ("decode", "streamed(3)")
    )
    for path in paths:
        assert differing(run(which, path, given), reference) == [], path


# A window below, at and above a tile of 16 keys, and above a split of 32.
@pytest.mark.parametrize("window", [5, 16, 20, 33])
def test_a_window_of_any_size(window: int) -> None:
    given = prompts(37, generate=3)
    shape = {"layers": 1, "sliding_window": window}
    which = decoder(ring=True, store="fp8_e4m3(head)", **shape)
    reference = run(decoder(store="fp8_e4m3(head)", **shape), "uncached", given)
    for path in ("decode", "chunked(10)"):
        assert differing(run(which, path, given), reference) == [], path
    full = run(decoder(store="fp8_e4m3(head)"), "prefill", given)
    assert len(differing(reference, full)) == 3


def test_sequences_wrap_each_by_itself() -> None:
    given = prompts(3, 12, 9, generate=3)
    shape = {"layers": 2, "sliding_window": 4, "layer_types": ("full", "sliding")}
    which = decoder(ring=True, store="int8(8)", **shape)
    reference = run(decoder(store="int8(8)", **shape), "prefill", given)
    for path in ("mixed", "paged(3)", "padded-left", "padded-right"):
        assert differing(run(which, path, given), reference) == [], path


def test_a_ring_holds_what_can_still_be_seen() -> None:
    session = decoder(ring=True, **MIXED).session(*one(24, chunk=3))
    ids = ids_of(session.members)
    cache = held(session)
    for start in range(0, 21, 3):
        forward(session, (span(start, start + 3),), ids)
    assert [cache.window(layer) for layer in range(2)] == [8, None]
    assert [cache.live(layer, 0) for layer in range(2)] == [range(11, 21), range(21)]
    assert cache.read(0, 0, 11, 21)[0].isfinite().all()
    slots = [cache.slots(0, 0, 21, region=region) for region in (0, 1)]
    assert len(set(slots[0])) == 21
    assert len(set(slots[1])) == 8 + 3 - 1
    with pytest.raises(SubjectError, match="adds 4 tokens to a, but its rings were made for chu"):
        forward(session, ((span(21, 24 + 1)),), [*ids[:0], [1] * 25])


def held(session: DecoderSession) -> KVCache:
    cache = session.cache()
    assert cache is not None
    return cache


def test_a_ring_of_an_unknown_chunk_is_refused() -> None:
    which = decoder(ring=True, **MIXED)
    endless = replace(plan("decode", prompts(9)), layout=Layout())
    assert "does not say how many tokens a step adds" in (which.unsupported(endless) or "")
    with pytest.raises(UnsupportedError, match=r"needs 8 \+ chunk - 1 slots"):
        which.session(*one(9))
    assert which.unsupported(replace(endless, layout=Layout(cached=False), schedule=())) is None
    with pytest.raises(UnsupportedError, match="a ring needs a layer with a sliding window"):
        decoder(ring=True)


def test_a_cut_sequence_is_computed_again_with_its_bits() -> None:
    for ring in (False, True):
        session = decoder(ring=ring, **MIXED).session(*one(24, chunk=4))
        ids = ids_of(session.members)
        for start in range(0, 20, 4):
            forward(session, (span(start, start + 4),), ids)
        cache = held(session)
        first = forward(session, (span(20, 21, decode=True),), ids)
        cache.truncate(0, 20)
        assert cache.live(1, 0) == range(20)
        assert cache.held(1, 0, 20, 21)[0].codes.isnan().all()
        again = forward(session, (span(20, 21, decode=True),), ids)
        assert differing(first, again) == []
        if ring:
            # 11 slots: after position 20 the oldest is 10, and the query at 16 sees 9.
            with pytest.raises(SubjectError, match="its rings hold those from 10 on, and the next"):
                cache.truncate(0, 16)
        with pytest.raises(SubjectError, match="holds 21 positions; it cannot be cut to 22"):
            cache.truncate(0, 22)


# Layers that share


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
    assert [len(layer.qkv) for layer in weights] == [128] * 3 + [4 * (narrow or 16)] * 2
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

    def watched(q: Tensor, kv: KeysValues, **more: Any) -> tuple[Tensor, Tensor]:
        donors.look(kv)
        out, lse = which.attention.prefill(q, kv, **more)
        return out, lse

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
    assert sinks.shape == (4,)
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


def test_no_order_is_certified_of_what_hides_a_probe() -> None:
    attention_of(decoder())
    for which, what in (
        (decoder(sliding_window=8), "a sliding window"),
        (decoder(attention_softcap=3.0), "a softcap"),
        (decoder(attention_sinks=True), "sinks"),
        (decoder("int8(8)"), r"a cache in int8\(8\)"),
    ):
        with pytest.raises(UnsupportedError, match=f"the decoder has {what}, behind which"):
            attention_of(which)


# Controls


def test_a_ring_that_is_one_slot_short_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    given = prompts(17, generate=4)
    which = decoder(ring=True, **MIXED)
    reference = run(which, "prefill", given)

    def allowed(q: Tensor, kv: KeysValues, **more: Any) -> tuple[Tensor, Tensor]:
        """The kernels refuse such a ring; an engine's need not."""
        out, lse = which.attention.prefill(q, unrolled(kv, q.dtype), **more)
        return out, lse

    open_ring = which.with_attention(replace(which.attention, prefill=allowed))
    assert differing(run(open_ring, "chunked(3)", given), reference) == []
    monkeypatch.setattr(
        "kvparity.decoder.cache.ring_size", lambda window, chunk: window + chunk - 2
    )
    assert differing(run(open_ring, "chunked(3)", given), reference)
    with pytest.raises(ValueError, match="ring"):
        run(which, "chunked(3)", given)


def test_a_follower_that_reads_another_owner_is_seen() -> None:
    given = prompts(12, generate=3)
    which = decoder(**SHARED)
    calls = iter(range(10**6))

    def decode(q: Tensor, kv: KeysValues, **more: Any) -> tuple[Tensor, Tensor]:
        number = next(calls) % 5
        if number in (0, 1):
            kept[number] = kv
        wrong = kept[0] if number == 4 else kv  # layer 4 should read layer 2, of the same type
        out, lse = which.attention.decode(q, wrong, **more)
        return out, lse

    kept: dict[int, KeysValues] = {}
    planted = which.with_attention(replace(which.attention, decode=decode))
    reference = run(which, "prefill", given)
    assert differing(run(planted, "decode", given), reference) == [(0, 12), (0, 13)]


@pytest.mark.parametrize("wrong", [{"window": 7}, {"window": 9}, {"softcap": 3.5}, {"sinks": None}])
def test_a_wrong_option_in_decode_is_seen(wrong: dict[str, Any]) -> None:
    given = prompts(12, generate=3)
    which = decoder(sliding_window=8, attention_softcap=3.0, attention_sinks=True)

    def decode(q: Tensor, kv: KeysValues, **more: Any) -> tuple[Tensor, Tensor]:
        out, lse = which.attention.decode(q, kv, **more | wrong)
        return out, lse

    planted = which.with_attention(replace(which.attention, decode=decode))
    assert len(differing(run(planted, "decode", given), run(which, "prefill", given))) == 2
