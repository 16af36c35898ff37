"""What the stores of an attention pair hold, in every layout, and what kernels are given of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from store_settings import WIDE, outcomes, setting

from kvparity.plan.schedule import Layout, Member, Span
from kvparity.subjects import events
from kvparity.subjects.base import LayeredCache, Reusable, SubjectError
from kvparity.subjects.pair.model import Pair
from kvparity.subjects.pair.subject import AttentionSubject


def session(plan: Layout, *names: str, store: str = "int8(8)", **more: Any) -> Any:
    subject = setting(WIDE, store, **more).subject
    assert isinstance(subject, AttentionSubject)
    return subject.session([Member(name, 8, 2) for name in names], plan)


@pytest.mark.parametrize("store", ["float16", "fp8_e4m3", "int8(8)", "int4(16)"])
@pytest.mark.parametrize("layout", ["slot-head", "head-slot"])
def test_everything_that_was_not_written_reads_as_nan(store: str, layout: str) -> None:
    found = session(Layout(slack=2), "a", "b", store=store, layout=layout)
    assert isinstance(found, Reusable)
    cache = found.cache()
    assert isinstance(cache, LayeredCache)
    list(found.forward((Span(1, 0, 5, 5),), [[0] * 5]))
    assert (cache.live(0, 0), cache.live(0, 1)) == (range(0), range(5))

    def empty(sequence: int) -> list[bool]:
        k, v = cache.read(0, sequence, 0, 10)
        assert torch.equal(torch.isnan(k).all(-1), torch.isnan(v).all(-1))
        return torch.isnan(k).all(-1).all(-1).tolist()

    assert (empty(0), empty(1)) == ([True] * 10, [False] * 5 + [True] * 5)
    cache.truncate(1, 3)
    assert (cache.live(0, 1), empty(1)) == (range(3), [False] * 3 + [True] * 7)
    found.adopt(0, 1, 2)
    assert (cache.live(0, 0), empty(0)) == (range(2), [False] * 2 + [True] * 8)
    for one, other in zip(cache.read(0, 0, 0, 2), cache.read(0, 1, 0, 2), strict=True):
        assert torch.equal(one.view(torch.int16), other.view(torch.int16))
    found.reset()
    assert (cache.live(0, 0), empty(0), empty(1)) == (range(0), [True] * 10, [True] * 10)
    assert session(Layout(cached=False), "a").cache() is None


def test_layouts_differ_in_memory_and_in_nothing_else() -> None:
    kept = {}
    for layout in ("slot-head", "head-slot"):
        found = session(Layout(), "a", "b", layout=layout)
        list(found.forward((Span(0, 0, 5, 5),), [[0] * 5]))
        kept[layout] = found.cache()
    a, b = kept.values()
    assert torch.equal(a.read(0, 0, 0, 5)[0], b.read(0, 0, 0, 5)[0])
    assert a.kind.k.codes.stride() != b.kind.k.codes.stride()


@pytest.mark.parametrize("store", ["float32", "int8(8)"])
@pytest.mark.parametrize("layout", ["slot-head", "head-slot"])
def test_kernels_are_given_views_where_they_can_be(store: str, layout: str) -> None:
    """Copies of a long cache at every step would be most of its memory, and of its time."""
    given: list[Any] = []

    def spy(q: Any, k: Any, v: Any, **more: Any) -> Any:
        given.append((k, v, more.get("k_scale")))
        return q, q.float().sum(-1)

    base = setting(WIDE, store, layout=layout, inputs="contiguous").subject
    assert isinstance(base, AttentionSubject)
    subject = base.with_pair(Pair.of(spy, spy, "prefill", "decode"))
    found = subject.session([Member(name, 8, 2) for name in "abc"], Layout())
    cache = found.cache()

    def run(*spans: Span) -> list[bool]:
        list(found.forward(spans, [[0] * (s.stop - s.start) for s in spans]))
        k, v, scale = given.pop()
        own = cache.kind
        pairs = [(k, own.k.codes), (v, own.v.codes)]
        pairs += [] if scale is None else [(scale, own.k.scales)]
        return [
            one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
            for one, other in pairs
        ]

    assert all(run(Span(1, 0, 4, 4)))
    assert not any(run(Span(0, 0, 4, 4), Span(2, 0, 3, 3)))
    assert all(run(Span(0, 4, 5, 4, decode=True), Span(1, 4, 5, 4, decode=True)))
    assert not any(run(Span(0, 5, 6, 5, decode=True), Span(2, 3, 4, 3, decode=True)))
    list(found.forward((Span(0, 6, 7, 6, decode=True), Span(2, 4, 5, 4, decode=True)), [[0], [0]]))
    k, _, _ = given.pop()
    assert k.shape[:2] == (2, cache.capacity)
    if store == "float32":  # a copy lies between bands of NaN, too
        assert bool(torch.isnan(k.as_strided((1,), (1,), k.storage_offset() - 1)).all())


def test_another_token_id_is_other_data_and_a_donor_shares_the_first() -> None:
    found = session(Layout(), "a", "b", store="float32")
    one = torch.cat(list(found.forward((Span(0, 0, 4, 0),), [[0] * 4])))
    found.reset()
    two = torch.cat(list(found.forward((Span(0, 0, 4, 0),), [[0, 0, 0, 1]])))
    assert torch.equal(one[:3], two[:3])
    assert not bool((one[3] == two[3]).any())
    subject = found.subject
    donor = [Member("a", 8, 2), Member("(donor)/a", 6, 5, like="a", shared=3)]
    shared = subject.session(donor, Layout())
    list(shared.forward((Span(1, 0, 5, 5),), [[0, 0, 0, 1, 1]]))
    list(shared.forward((Span(0, 0, 5, 5),), [[0] * 5]))
    (k, _), (own, _) = shared.cache().read(0, 1, 0, 5), shared.cache().read(0, 0, 0, 5)
    same = (k == own).flatten(1).all(1).tolist()
    assert same == [True, True, True, False, False]


class Ear:
    def __init__(self) -> None:
        self.written: list[events.Wrote] = []
        self.seen: list[events.Attended] = []

    def wrote(self, event: events.Wrote) -> None:
        self.written.append(event)

    def wants(self, sequence: int, positions: Any) -> Any:
        return [p for p in positions if p % 2 == 0]

    def attended(self, event: events.Attended) -> None:
        self.seen.append(event)


@pytest.mark.parametrize("store", ["float32", "int8(8)"])
def test_a_listener_is_told_what_the_kernels_were_given(store: str) -> None:
    found, ear = session(Layout(), "a", "b", store=store, window=3), Ear()
    steps = [
        ((Span(0, 0, 4, 4), Span(1, 0, 2, 2)), [[0] * 4, [0] * 2]),
        ((Span(0, 4, 5, 4, decode=True), Span(1, 2, 3, 2, decode=True)), [[0], [0]]),
    ]
    with events.listening(ear):
        for step, ids in steps:
            list(found.forward(step, ids))
    assert [(w.layer, w.sequence, w.start, len(w.k)) for w in ear.written] == [
        (0, 0, 0, 4), (0, 1, 0, 2), (0, 0, 4, 1), (0, 1, 2, 1)
    ]  # fmt: skip
    assert [(e.sequence, e.position, e.length, e.first, e.decode) for e in ear.seen] == [
        (0, 0, 1, 0, False),
        (0, 2, 3, 0, False),
        (1, 0, 1, 0, False),
        (0, 4, 5, 2, True),
        (1, 2, 3, 0, True),
    ]
    cache = found.cache()
    for event in ear.seen:
        k, v = cache.read(0, event.sequence, event.first, event.position + 1)
        assert torch.equal(event.k, k)
        assert torch.equal(event.v, v)
        assert event.told is None
        assert event.lse is not None
        scores = (event.q.view(2, 2, 16) * event.k.transpose(0, 1)[:, None, -1]).sum(-1)
        assert event.lse.view(2, 2).ge(scores * event.scale - 1e-5).all()


def test_writing_to_a_scale_is_an_error() -> None:
    pair = WIDE | {"decode": "wide_pair.py:decode_writes_scale"}
    with pytest.raises(SubjectError, match="wrote to its input k_scale"):
        outcomes(setting(pair, "fp8_e4m3", ["decode"]))


def test_every_head_has_a_scale_of_its_own_where_the_format_says_so() -> None:
    scales = {}
    for store in ("fp8_e4m3(tensor)", "fp8_e4m3(head)", "int8(8)"):
        subject = setting(WIDE, store).subject
        assert isinstance(subject, AttentionSubject)
        scales[store] = (subject.static_scale("k"), subject.static_scale("v"))
    k, v = scales["fp8_e4m3(head)"]
    assert k is not None
    assert v is not None
    assert len({*k.tolist(), *v.tolist()}) == 4
    k, v = scales["fp8_e4m3(tensor)"]
    assert k is not None
    assert v is not None
    assert len(set(k.tolist())) == len(set(v.tolist())) == 1
    assert k[0] != v[0]
    assert scales["int8(8)"] == (None, None)
