"""What one call of a pair is given, leaves and tells, where nothing else would show a mistake."""

from __future__ import annotations

import mmap
from dataclasses import replace
from typing import Any

import pytest
import torch
from pair_returns import call
from spied_pair import MEMBERS, Ear, Spy, decode, prefill, run
from torch import Tensor

from kvparity.plan.schedule import Layout, Span
from kvparity.subjects import events
from kvparity.subjects.base import SubjectError
from kvparity.subjects.pair import sparse
from kvparity.subjects.pair.data import Drawing, DrawnShape
from kvparity.subjects.pair.exact import in_format
from kvparity.subjects.pair.model import Pair
from kvparity.subjects.pair.subject import AttentionSubject


def own(kernel: Any) -> AttentionSubject:
    """A subject whose two kernels are ``kernel``; it is never given views."""
    return replace(Spy().subject(strided=False), pair=Pair.of(kernel, kernel, "p", "d"))


def test_a_shifted_span_is_drawn_where_it_is_shifted_to() -> None:
    spy = Spy()
    session = spy.subject().session(MEMBERS, Layout())
    run(session, Span(0, 2, 5, 2, position_shift=3))
    q, _, _ = spy.subject().draw("a", torch.arange(5, 8))
    assert torch.equal(spy.given[0]["q"], q)


def test_rows_of_later_chunks_are_told_with_what_came_back_for_them() -> None:
    def kernel(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
        return q + 1, q[..., 0].float()

    subject, ear = own(kernel), Ear()
    session = subject.session(MEMBERS, Layout())
    with events.listening(ear):
        run(session, prefill(0, 3), prefill(1, 2))
        run(session, prefill(0, 5, start=3), prefill(1, 4, start=2), decode(2, 0))
    places = [(event.sequence, event.position) for event in ear.seen[-5:]]
    assert places == [(0, 3), (0, 4), (1, 2), (1, 3), (2, 0)]
    for event in ear.seen:
        q, _, _ = subject.draw(MEMBERS[event.sequence].id, torch.tensor([event.position]))
        assert torch.equal(event.q, q[0])
        assert torch.equal(event.out, q[0] + 1)
        assert event.lse is not None
        assert torch.equal(event.lse, q[0, :, 0])


def test_a_pair_without_an_lse_tells_none() -> None:
    ear = Ear()
    session = Spy(lse=(False, False)).subject().session(MEMBERS, Layout())
    with events.listening(ear):
        run(session, prefill(0, 3))
        run(session, decode(0, 3))
    assert [event.lse for event in ear.seen] == [None] * 4


@pytest.mark.parametrize("span", [prefill(0, 3), decode(0, 0)], ids=["prefill", "decode"])
def test_a_write_before_the_first_slot_is_told_of_the_call_that_wrote(span: Span) -> None:
    def kernel(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Tensor:
        k.as_strided((1,), (1,), k.storage_offset() - 1)[:] = 0.0
        return torch.zeros_like(q)

    name = "d" if span.decode else "p"
    with pytest.raises(SubjectError, match=f"^{name} wrote to slots of the cache that it was not"):
        run(own(kernel).session(MEMBERS, Layout()), span)


def test_an_error_of_a_kernel_without_frames_is_not_one_of_its_signature() -> None:
    with pytest.raises(SubjectError) as caught:
        call(lambda: int("x"))
    assert "is called with" not in str(caught.value)


def test_no_value_reaches_the_numbers_that_bfloat16_holds_worse() -> None:
    shape = DrawnShape(5, queries=2, heads=2, dim=32, device=torch.device("cpu"))
    values = Drawing(shape).draw("v", "a", torch.arange(4000)).abs()
    assert 3.9 < values.max() < 4.0


@pytest.mark.parametrize("store", ["float32", "bfloat16", "fp8_e4m3(head)", "int8(8)"])
def test_a_subject_in_another_format_stores_that(store: str) -> None:
    found = in_format(Spy().subject(), "bfloat16", store)
    assert (str(found.store), found.execution) == (store, torch.bfloat16)


def test_a_pair_has_no_tokens_and_as_many_positions_as_its_offsets_count() -> None:
    subject = Spy().subject()
    assert (subject.vocab, subject.max_positions) == (0, torch.iinfo(torch.int32).max)


def test_memory_of_which_little_is_touched_asks_for_no_huge_pages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    class Told(mmap.mmap):
        def madvise(self, option: int, *where: int) -> None:
            asked.append(option)

    monkeypatch.setattr(sparse.mmap, "mmap", Told)
    assert not sparse.mapped(4096).any()
    assert asked == [mmap.MADV_NOHUGEPAGE]
