"""Windows and rings: one function on every path."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
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
from few import few

from kvparity.plan.schedule import Layout
from kvparity.relations.order.decoder import attentions_of
from kvparity.relations.order.sides import Side
from kvparity.subjects.attention_calls import DecodeCall, Outputs, PrefillCall
from kvparity.subjects.base import SubjectError, UnsupportedError
from kvparity.subjects.decoder.cache import KVCache
from kvparity.subjects.decoder.read_back import unrolled
from kvparity.subjects.decoder.session import DecoderSession

MIXED: dict[str, Any] = {
    "layers": 2, "sliding_window": 8, "layer_types": ("sliding", "full")
}  # fmt: skip


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
@pytest.mark.parametrize("window", few([5, 33, 16, 20], 2))
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


def test_orders_are_certified_of_each_kind_of_layer() -> None:
    """The pairs that are probed give the bits of the kernels over what the decoder's caches are."""
    (plain,) = attentions_of(decoder()).values()
    assert (plain.window, plain.softcap, plain.sinks, plain.format) == (0, 0.0, False, None)
    rules = {"attention_softcap": 3.0, "attention_sinks": True}
    found = attentions_of(decoder("int8(8)", ring=True, **MIXED, **rules))
    assert list(found) == ["sliding layers", "full layers"]
    assert [each.window for each in found.values()] == [8, 0]
    for each in found.values():
        assert (each.softcap, each.sinks, str(each.store)) == (3.0, True, "int8(8)")
        decode = Side(each, "decode", keys=21, batch=2, rows=1)
        prefill = Side(each, "prefill", keys=21, batch=2, rows=3)
        mine, other = (side.random(torch.Generator().manual_seed(0)) for side in (decode, prefill))
        assert torch.equal(mine.out.view(torch.int32), other.out.view(torch.int32))


# Controls


def test_a_ring_that_is_one_slot_short_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    given = prompts(17, generate=4)
    which = decoder(ring=True, **MIXED)
    reference = run(which, "prefill", given)

    def allowed(call: PrefillCall) -> Outputs:
        """The kernels refuse such a ring; an engine's need not."""
        return which.attention.prefill(replace(call, kv=unrolled(call.kv, call.q.dtype)))

    open_ring = which.with_attention(replace(which.attention, prefill=allowed))
    assert differing(run(open_ring, "chunked(3)", given), reference) == []
    monkeypatch.setattr(
        "kvparity.subjects.decoder.cache.ring_size", lambda window, chunk: window + chunk - 2
    )
    assert differing(run(open_ring, "chunked(3)", given), reference)
    with pytest.raises(ValueError, match="ring"):
        run(which, "chunked(3)", given)


@pytest.mark.parametrize("wrong", [{"window": 7}, {"window": 9}, {"softcap": 3.5}, {"sinks": None}])
def test_a_wrong_option_in_decode_is_seen(wrong: dict[str, Any]) -> None:
    given = prompts(12, generate=3)
    which = decoder(sliding_window=8, attention_softcap=3.0, attention_sinks=True)

    def decode(call: DecodeCall) -> Outputs:
        return which.attention.decode(replace(call, **wrong))

    planted = which.with_attention(replace(which.attention, decode=decode))
    assert len(differing(run(planted, "decode", given), run(which, "prefill", given))) == 2
