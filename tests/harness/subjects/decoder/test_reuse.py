"""Sessions that outlive their first use: reset and poisoned, or begun from a donor's cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from decoder_cases import decoder, differing, forward, ids_of, plan, play, prompts, run, span

from kvparity.plan.schedule import Layout, Member
from kvparity.subjects.base import LayeredCache, Reusable, SubjectError
from kvparity.subjects.decoder.cache import KVCache
from kvparity.subjects.decoder.placement import Region
from kvparity.subjects.decoder.session import DecoderSession

WINDOW: dict[str, Any] = {
    "layers": 2, "sliding_window": 6, "layer_types": ("sliding", "full")
}  # fmt: skip


def held(session: DecoderSession) -> KVCache:
    cache = session.cache()
    assert cache is not None
    return cache


def test_sessions_keep_the_protocols_of_the_seam() -> None:
    session = decoder().session((Member("a", 4),), Layout())
    assert isinstance(session, Reusable)
    assert isinstance(session.cache(), LayeredCache)


@pytest.mark.parametrize("store", ["float32", "fp8_e4m3(head)", "int4(4)"])
def test_a_reset_leaves_poison_and_no_trace(store: str) -> None:
    given = prompts(9, generate=4)
    which = decoder(store, ring=True, **WINDOW)
    assert differing(run(which, "reset", given), run(which, "prefill", given)) == []
    session = which.session((Member("a", 12),), Layout(chunk=9))
    forward(session, (span(0, 9),), ids_of(session.members))
    session.reset()
    cache = held(session)
    assert cache.live(0, 0) == range(0)
    for stored in (*cache.k, *cache.v):
        everything = stored.get(torch.arange(len(stored.codes)))
        assert stored.decode(everything, torch.float32).isnan().all()


def test_what_is_left_of_an_earlier_use_is_seen() -> None:
    """The rows of a session that forgets without poison, and reads one stale slot too many."""
    which = decoder()
    session = which.session((Member("a", 12),), Layout())
    ids = ids_of(session.members)
    first = forward(session, (span(0, 9),), ids)
    stale = held(session).held(0, 0, 4, 5)
    session.reset()
    forward(session, (span(0, 8),), [[5] * 12])
    held(session).put_back(0, 0, 4, stale)
    wrong = forward(session, (span(8, 9, decode=True),), ids)
    session.reset()
    forward(session, (span(0, 8),), [[5] * 12])
    right = forward(session, (span(8, 9, decode=True),), ids)
    assert differing(wrong, right) == [(0, 8)]
    session.reset()
    assert differing(forward(session, (span(0, 9),), ids), first) == []


# Prefixes at the edges of pages of 16 and of chunks, one token to either side.
@pytest.mark.parametrize(
    "path",
    ["prefix(8)", "prefix(1)", "prefix-paged(15)", "prefix-paged(16)", "prefix-paged(17)"],
)
def test_an_adopted_prefix_is_as_good_as_a_computed_one(path: str) -> None:
    given = prompts(19, generate=3)
    reference = run(decoder(**WINDOW), "prefill", given)
    for ring in (False, True):
        assert differing(run(decoder(ring=ring, **WINDOW), path, given), reference) == []


@pytest.mark.parametrize("store", ["fp8_e5m2(head)", "int8(8)"])
def test_codes_are_adopted_as_they_are(store: str) -> None:
    given = prompts(19, generate=3)
    which = decoder(store, heads_first=True)
    reference = run(which, "prefill", given)
    for path in ("prefix(9)", "prefix-paged(18)"):
        assert differing(run(which, path, given), reference) == [], path


PAIR = (Member("a", 24), Member("d", 24, like="a", shared=24))


def test_whole_pages_are_shared_and_the_rest_is_copied() -> None:
    session = decoder(ring=True, **WINDOW).session(PAIR, Layout(page=4, chunk=11))
    ids = ids_of(PAIR)
    forward(session, (span(0, 11, sequence=1),), ids)
    cache = held(session)
    session.adopt(0, 1, 10)
    assert cache.slots(0, 0, 8) == cache.slots(1, 0, 8)
    assert not set(cache.slots(0, 8, 24)) & set(cache.slots(1, 0, 24))
    assert not set(cache.slots(0, 0, 16, region=1)) & set(cache.slots(1, 0, 16, region=1))
    for layer in (0, 1):
        live = cache.live(layer, 0)
        assert live.stop == 10
        for mine, theirs in zip(
            cache.read(layer, 0, live.start, 10), cache.read(layer, 1, live.start, 10), strict=True
        ):
            assert mine.view(torch.int32).equal(theirs.view(torch.int32))
    # The donor had gone on by one; what it wrote there is not the sequence's.
    assert cache.held(1, 0, 10, 11)[0].codes.isnan().all()
    with pytest.raises(SubjectError, match="the first 8 lie in pages of another sequence"):
        cache.truncate(0, 7)
    session.reset()
    assert not set(cache.slots(0, 0, 24)) & set(cache.slots(1, 0, 24))


def test_what_cannot_be_adopted_is_refused() -> None:
    session = decoder(ring=True, **WINDOW).session(PAIR, Layout(chunk=3))
    ids = ids_of(PAIR)
    for start in range(0, 15, 3):
        forward(session, (span(start, start + 3, sequence=1),), ids)
    with pytest.raises(SubjectError, match="cannot adopt 16 tokens of d, which holds 15"):
        session.adopt(0, 1, 16)
    # A ring of 8 slots: the donor's holds 7 .. 14, and the query at position 11 sees 6.
    with pytest.raises(SubjectError, match="hold the positions from 7 on, and the next query sees"):
        session.adopt(0, 1, 11)
    session.adopt(0, 1, 12)
    assert held(session).live(0, 0) == range(7, 12)
    with pytest.raises(SubjectError, match="12 filled"):
        session.adopt(0, 1, 12)
    adopted = forward(session, (span(12, 15),), ids)
    clean = decoder(ring=True, **WINDOW).session(PAIR, Layout(chunk=3))
    for start in range(0, 15, 3):
        found = forward(clean, (span(start, start + 3),), ids)
    assert differing(adopted, found) == []


# Controls


def test_a_stale_ring_after_an_adoption_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adopted from a ring that has lost what the next query sees (sgl-project/sglang#30339)."""
    ids = ids_of(PAIR)
    clean = decoder(ring=True, **WINDOW).session(PAIR, Layout(chunk=3))
    for start in range(0, 12, 3):
        rows = forward(clean, (span(start, start + 3),), ids)

    def begun(tokens: int) -> Any:
        session = decoder(ring=True, **WINDOW).session(PAIR, Layout(chunk=3))
        for start in range(0, 12, 3):
            forward(session, (span(start, start + 3, sequence=1),), ids)
        session.adopt(0, 1, tokens)
        return forward(session, (span(tokens, tokens + 3),), ids)

    assert differing(begun(9), rows) == []
    # The donor goes on to 21 tokens; nobody checks what its ring still holds.
    session = decoder(ring=True, **WINDOW).session(PAIR, Layout(chunk=3))
    for start in range(0, 21, 3):
        forward(session, (span(start, start + 3, sequence=1),), ids)
    with pytest.raises(SubjectError, match="its rings hold"):
        session.adopt(0, 1, 9)
    monkeypatch.setattr(Region, "needed_at", lambda self, length: length)
    cache = held(session)
    for region in cache.regions:
        region.oldest[1] = 0
    session.adopt(0, 1, 9)
    stale = forward(session, (span(9, 12),), ids)
    assert stale.keys() == rows.keys()
    assert not stale[0, 11].view(torch.int32).equal(rows[0, 11].view(torch.int32))


def test_an_adoption_of_other_tokens_is_seen() -> None:
    given = prompts(19, generate=3)
    which = plan("prefix(9)", given)
    reference = run(decoder(), "prefill", given)
    session = decoder().session(which.members, which.layout)
    adopt = session.adopt

    def one_more(sequence: int, donor: int, tokens: int) -> None:
        adopt(sequence, donor, tokens)
        cache = held(session)
        cache.put_back(0, sequence, 8, cache.held(0, donor, 9, 10))

    session.adopt = one_more  # type: ignore[method-assign]
    assert len(differing(play(session, which), reference)) == 3
