"""What a session of a pair gives its kernels, call by call, and what its cache holds afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from spied_pair import MEMBERS, Ear, Spy, decode, ids, prefill, run

from kvparity.plan.schedule import Layout, Member, Span
from kvparity.subjects import events
from kvparity.subjects.base import SubjectError


@pytest.mark.parametrize("wanted", [True, False], ids=["layout", "no layout"])
@pytest.mark.parametrize("taken", [True, False], ids=["taken", "not taken"])
def test_sequences_without_a_token_are_given_where_both_say_so(wanted: bool, taken: bool) -> None:
    spy = Spy()
    session = spy.subject(empties=taken).session(MEMBERS, Layout(empties=wanted))
    run(session, prefill(0, 4), prefill(1, 5))
    run(session, decode(0, 4), decode(1, 5))
    first, second = spy.given
    both = wanted and taken
    offsets = [0, 0, 4, 4, 4, 9, 9] if both else [0, 4, 9]
    if both:  # one before, one behind the first as its number must reach a row, one at the end
        offsets = [0, 0, 4, 4, 9, 9]
    assert first["cu_seqlens_q"].tolist() == first["cu_seqlens_k"].tolist() == offsets
    assert second["kv_lens"].tolist() == ([0, 5, 6, 1, 0] if both else [5, 6])
    assert second["kv_lens"].dtype == first["cu_seqlens_q"].dtype == torch.int32
    assert len(second["q"]) == len(second["k"]) == len(second["kv_lens"])


def test_keys_end_where_the_chunk_does() -> None:
    spy = Spy()
    session = spy.subject().session(MEMBERS, Layout())
    run(session, prefill(0, 3), prefill(2, 2))
    run(session, prefill(2, 6, start=2), prefill(0, 5, start=3))
    assert spy.given[1]["cu_seqlens_q"].tolist() == [0, 4, 6]
    assert spy.given[1]["cu_seqlens_k"].tolist() == [0, 6, 11]


def fused(call: dict[str, Any]) -> str:
    """Which of q, k and v of a call are views of a tensor that holds more beside them."""
    kept = {"q": 2 * 8, "k": 8, "v": 8}
    q = call["q"].stride(0) != kept["q"]
    keys = [call[name].dim() == 3 and call[name].stride(0) not in (kept[name],) for name in "kv"]
    return "".join(name for name, each in zip("qkv", [q, *keys], strict=True) if each)


@pytest.mark.parametrize(
    ("strided", "wanted"),
    [
        # The first call of a kind and every other one, by the sequence that comes first in it.
        (True, ["qkv", "", "", "q", "q", "", "q"]),
        (False, ["", "", "", "", "", "", ""]),
    ],
)
def test_every_other_call_is_given_views(strided: bool, wanted: list[str]) -> None:
    spy = Spy()
    session = spy.subject(strided=strided).session(MEMBERS, Layout())
    run(session, prefill(0, 3))  # 0 of sequence 0
    run(session, prefill(0, 4, start=3))  # 1
    run(session, prefill(1, 3))  # 0 of sequence 1, which is odd
    run(session, prefill(0, 5, start=4))  # 2, whose keys are those of a cache
    run(session, decode(0, 5))
    run(session, decode(0, 6), decode(1, 3))
    run(session, decode(2, 0))
    assert [fused(call) for call in spy.given] == wanted
    assert session.observed() == {"attention.prefill": 4, "attention.decode": 3}
    q = spy.given[4]["q"]
    if strided:  # beside the two heads of q there is room for one of k and one of v
        assert q.stride() == ((2 + 2) * 8, 8, 1)


def test_slots_of_a_far_cache_lie_as_far_apart_as_the_longest_prompt_asks() -> None:
    spy = Spy()
    members = (Member("a", 8, 6), Member("b", 8, 3))
    session = spy.subject().session(members, Layout(far=True))
    run(session, prefill(0, 6))
    call = spy.given[0]
    for name in "kv":
        last = 5 * call[name].stride(0)
        assert 2**31 <= last < 2**31 + 5 * 8
    assert call["q"].stride(0) == 4 * 8  # views of their own: there is room beside q for them
    assert torch.equal(call["k"], session.cache().read(0, 0, 0, 6)[0])


@pytest.mark.parametrize("lse", [(True, False), (False, True)])
def test_an_lse_of_one_kernel_alone_is_told(lse: tuple[bool, bool]) -> None:
    session = Spy(lse=lse).subject().session(MEMBERS, Layout())
    run(session, prefill(0, 3))
    with pytest.raises(SubjectError, match="one of p and d returns an LSE and the other does not"):
        run(session, decode(0, 3))


def test_a_fault_of_rows_without_a_key_is_told_once() -> None:
    session = Spy(nobody=2.0).subject().session(MEMBERS, Layout(empties=True))
    run(session, prefill(0, 3))
    assert session.faults() == ()
    for at in (3, 4):
        run(session, decode(0, at))
    assert session.faults() == ("d gave 2 in a row with kv_lens 0; expected 0",)


@pytest.mark.parametrize("given", [[], [[0, 0]], [[0, 0, 0, 0]], [[0] * 3, [0] * 3]])
def test_ids_that_do_not_fit_the_spans_are_refused(given: list[list[int]]) -> None:
    session = Spy().subject().session(MEMBERS, Layout())
    with pytest.raises(ValueError, match=r"zip\(\)"):
        list(session.forward((prefill(0, 3),), given))


def test_only_wanted_rows_come_back_in_the_order_of_the_spans() -> None:
    session = Spy(lse=(False, False)).subject().session(MEMBERS, Layout())
    run(session, prefill(1, 2))
    step = (decode(1, 2), Span(0, 0, 4, 1, rows_to=3), Span(2, 0, 3, 3))
    assert [len(rows) for rows in session.forward(step, ids(*step))] == [1, 2]


@pytest.mark.parametrize("store", ["float32", "int8(8)"])
@pytest.mark.parametrize("empties", [False, True])
def test_a_cache_holds_what_a_list_would(store: str, empties: bool) -> None:
    """Writes, forgetting and adoption, beside lists of what each position should hold."""
    session = Spy().subject(store).session(MEMBERS, Layout(slack=2, empties=empties))
    cache, generator = session.cache(), torch.Generator().manual_seed(0)
    held: list[list[float | None]] = [[None] * 10 for _ in MEMBERS]
    filled = [0, 0, 0]

    def write(sequence: int, start: int, count: int) -> None:
        numbers = torch.randint(1, 99, (count,), generator=generator).float()
        k = numbers[:, None, None].expand(count, 1, 8)
        cache.write(0, sequence, start, k, -k)
        held[sequence][start : start + count] = numbers.tolist()
        filled[sequence] = max(filled[sequence], start + count)

    def truncate(sequence: int, length: int) -> None:
        cache.truncate(sequence, length)
        held[sequence][length:] = [None] * (10 - length)
        filled[sequence] = min(filled[sequence], length)

    def adopt(sequence: int, donor: int, tokens: int) -> None:
        session.adopt(sequence, donor, tokens)
        held[sequence][:tokens] = held[donor][:tokens]
        filled[sequence] = tokens

    def reset() -> None:
        session.reset()
        held[:], filled[:] = [[None] * 10 for _ in MEMBERS], [0, 0, 0]

    steps: Sequence[tuple[Any, ...]] = [
        (write, 0, 0, 4), (write, 1, 0, 10), (write, 0, 1, 2), (write, 2, 0, 1), (truncate, 1, 6),
        (truncate, 0, 9), (adopt, 2, 1, 5), (write, 2, 5, 5), (truncate, 2, 0), (adopt, 2, 0, 1),
        (reset,), (write, 1, 0, 3),
    ]  # fmt: skip
    for step, *about in steps:
        step(*about)
        assert [cache.live(0, i) for i in range(3)] == [range(n) for n in filled]
        assert cache.intact()
        for sequence, row in enumerate(held):
            k, v = cache.read(0, sequence, 0, 10)
            wanted = torch.tensor([torch.nan if x is None else x for x in row])
            for found, sign in ((k, 1), (v, -1)):
                same = wanted[:, None, None].expand(10, 1, 8) * sign
                torch.testing.assert_close(found, same, equal_nan=True, rtol=1e-6, atol=0)
    assert (cache.layers(), cache.owner(5), cache.window(0)) == (1, 0, None)


@pytest.mark.parametrize("part", ["k", "v"])
@pytest.mark.parametrize("place", ["before", "behind", "inside"])
def test_memory_that_somebody_wrote_to_is_not_intact(part: str, place: str) -> None:
    cache = Spy().subject().session(MEMBERS, Layout()).cache()
    stored = getattr(cache.kind, part)
    at = {"before": 0, "behind": -1, "inside": stored.codes.storage_offset() * 4}[place]
    stored.memory()[at] ^= 1
    assert not cache.intact()


@pytest.mark.parametrize("store", ["float32", "fp8_e4m3(head)", "int8(4)"])
@pytest.mark.parametrize("cached", [True, False])
def test_a_listener_is_told_of_each_row_and_its_keys(store: str, cached: bool) -> None:
    spy, ear = Spy(), Ear()
    session = spy.subject(store).session(MEMBERS, Layout(cached=cached, empties=cached))
    with events.listening(ear):
        run(session, prefill(1, 2), prefill(0, 3))
        if cached:
            run(session, prefill(0, 5, start=3), decode(1, 2))
    order = [(1, 0), (1, 1), (0, 0), (0, 1), (0, 2)]
    order += [(0, 3), (0, 4), (1, 2)] if cached else []
    assert [(event.sequence, event.position) for event in ear.seen] == order
    whole = spy.subject(store)
    for event in ear.seen:
        name = MEMBERS[event.sequence].id
        q, _, _ = whole.draw(name, torch.tensor([event.position]))
        _, k, v = whole.stored(Member(name, 8, 3), range(event.position, event.position + 1))
        assert torch.equal(event.q, q[0])
        assert torch.equal(event.k, k)
        assert torch.equal(event.v, v)
        assert (event.first, event.length, event.scale) == (0, event.position + 1, 8**-0.5)
