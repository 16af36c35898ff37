"""A defect of a session changes what its row says, there alone, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from planting import Event, Place, Told, changed_places, chunk, ids_of, number, one, run

from kvparity.controls import cache, reuse, rope, sequence, windows
from kvparity.plan.schedule import Layout, Member, Span, Step
from kvparity.subjects.base import UnsupportedError

MEMBERS = [Member("a", 6, 3), Member("b", 6, 2)]
PROMPTS: Step = (chunk(0, 0, 3), chunk(1, 0, 2))
FIRST: Step = (one(0, 3), one(1, 2))
SECOND: Step = (one(0, 4), one(1, 3))
THIRD: Step = (one(0, 5), one(1, 4))
LEFT = Layout(batch="left")


def moved(*pairs: tuple[Place, Place]) -> dict[Place, float]:
    """Places, and those whose number they hold."""
    return {at: number(*other) for at, other in pairs}


def tamper(layer: int, of: int, position: int) -> Callable[[Any], None]:
    """Write 9 at a place, as a probe does."""

    def write(session: Any) -> None:
        nine = torch.full((1, 1, 1), 9.0)
        session.cache().write(layer, of, position, nine, -nine)

    return write


def adopt(of: int, donor: int, tokens: int) -> Callable[[Any], None]:
    return lambda session: session.adopt(of, donor, tokens)


def plain() -> Told:
    return Told()


def windowed(spare: int = 0) -> Callable[[], Told]:
    return lambda: Told(windows=(2, None), spare=spare)


def narrow(dtype: torch.dtype, *places: Place) -> dict[Place, float]:
    return {at: float(torch.tensor(number(*at)).to(dtype)) for at in places}


L0, L1 = 0, 1
BOTH = (L0, L1)
CHANGES: dict[str, tuple[Any, Callable[[], Told], Sequence[Event], dict[Place, float]]] = {
    "stale-slot": (cache.stale_slot, plain, [PROMPTS, FIRST], moved(
        *(((layer, 0, 2), (layer, 0, 0)) for layer in BOTH),
        *(((layer, 1, 1), (layer, 1, 0)) for layer in BOTH))),
    "stale-slot: once": (cache.stale_slot, plain, [PROMPTS, FIRST, SECOND, THIRD], moved(
        *(((layer, 0, 2), (layer, 0, 0)) for layer in BOTH),
        *(((layer, 1, 1), (layer, 1, 0)) for layer in BOTH))),
    "stale-slot: no decoding": (cache.stale_slot, plain,
                                [PROMPTS, (chunk(0, 3, 4), chunk(1, 2, 5))], {}),
    "stale-slot: one token is no earlier write": (cache.stale_slot, plain,
                                                  [(chunk(0, 0, 1),), (one(0, 1),)], {}),
    "stale-slot: from the second on": (
        cache.stale_slot, plain, [(chunk(0, 0, 1),), (one(0, 1),), (one(0, 2),)],
        moved(*(((layer, 0, 1), (layer, 0, 0)) for layer in BOTH))),
    "stale-slot: a window's oldest": (
        cache.stale_slot, windowed(), [(chunk(0, 0, 4),), (one(0, 4),)],
        moved(((L0, 0, 3), (L0, 0, 2)), ((L1, 0, 3), (L1, 0, 0)))),
    "stale-slot: a window of one": (
        cache.stale_slot, lambda: Told(windows=(1, None)), [(chunk(0, 0, 4),), (one(0, 4),)],
        moved(((L1, 0, 3), (L1, 0, 0)))),
    "narrow-cache": (cache.narrow_cache, plain, [PROMPTS], narrow(
        torch.bfloat16, *((layer, 0, p) for layer in BOTH for p in range(3)),
        *((layer, 1, p) for layer in BOTH for p in range(2)))),
    "narrow-cache: what a window holds": (
        cache.narrow_cache, windowed(), [(chunk(0, 0, 4),)], narrow(
            torch.bfloat16, (L0, 0, 2), (L0, 0, 3), *((L1, 0, p) for p in range(4)))),
    "unwritten-slot": (cache.unwritten_slot, plain, [PROMPTS, FIRST, SECOND],
                       dict.fromkeys([(L0, 0, 4), (L1, 0, 4)], 0.0)),
    "unwritten-slot: of each": (
        cache.unwritten_slot, plain, [PROMPTS, FIRST, SECOND, (one(1, 4),)],
        dict.fromkeys([(L0, 0, 4), (L1, 0, 4), (L0, 1, 4), (L1, 1, 4)], 0.0)),
    "unwritten-slot: no decoding": (cache.unwritten_slot, plain, [(chunk(0, 0, 6),)], {}),
    "baked-key": (cache.baked_key, plain,
                  [PROMPTS, FIRST, tamper(L0, 0, 2), tamper(L1, 1, 1), FIRST],
                  moved(((L0, 0, 2), (L0, 0, 2)), ((L1, 1, 1), (L1, 1, 1)))),
    "baked-key: no other key": (cache.baked_key, plain,
                                [PROMPTS, FIRST, tamper(L0, 0, 1), tamper(L0, 1, 0), FIRST], {}),
    "baked-key: no other length": (cache.baked_key, plain,
                                   [PROMPTS, FIRST, tamper(L0, 0, 3), SECOND], {}),
    "baked-key: no decoding": (
        cache.baked_key, plain,
        [PROMPTS, (chunk(0, 3, 4),), tamper(L0, 0, 2), tamper(L1, 0, 2), (chunk(0, 3, 4),)], {}),
    "baked-key: nothing lies before": (cache.baked_key, plain, [(one(0, 0),)], {}),
    "writeback-skipped": (windows.writeback_skipped, windowed(spare=4), [(chunk(0, 0, 5),)],
                          dict.fromkeys([(L0, 0, 0), (L0, 0, 1), (L0, 0, 2)], 0.0)),
    "writeback-skipped: what is live": (
        windows.writeback_skipped, windowed(spare=1), [(chunk(0, 0, 5),)],
        dict.fromkeys([(L0, 0, 2)], 0.0)),
    "writeback-skipped: of this chunk": (
        windows.writeback_skipped, windowed(spare=4), [(chunk(0, 0, 2),), (chunk(0, 2, 5),)],
        dict.fromkeys([(L0, 0, 2)], 0.0)),
    "writeback-skipped: within the window": (
        windows.writeback_skipped, windowed(spare=4), [(chunk(0, 0, 2),), (one(0, 2),)], {}),
    "ring-stale-on-reuse": (
        windows.ring_stale_on_reuse, windowed(spare=4), [(chunk(0, 0, 5),), adopt(1, 0, 4)],
        moved(((L0, 1, 2), (L0, 0, 0)), ((L0, 1, 3), (L0, 0, 1)))),
    "ring-stale-on-reuse: the donor's oldest": (
        windows.ring_stale_on_reuse, windowed(spare=1), [(chunk(0, 0, 5),), adopt(1, 0, 4)],
        moved(((L0, 1, 3), (L0, 0, 2)))),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_defect_of_the_cache_changes_the_slots_that_it_says(name: str) -> None:
    plant, subject, events, expected = CHANGES[name]
    found = changed_places(plant, subject, MEMBERS, events)
    if name.startswith("baked-key"):  # it puts back what was there, where the right one does not
        expected = {at: number(*at) for at in expected}
    assert found == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_narrower_cache_than_16_bits_holds_8(dtype: torch.dtype) -> None:
    session = cache.narrow_cache(Told(windows=(None,), dtype=dtype)).session(MEMBERS, Layout())
    third = torch.full((1, 1, 1), 1.3, dtype=dtype)

    def computed(step: Step, ids: Any) -> Any:
        session.inner.memory.filled[0] = 1
        session.inner.memory.write(0, 0, 0, third, -third)
        return iter(())

    session.inner.forward = computed
    run_nothing = list(session.forward((one(0, 0),), [[1]]))
    assert run_nothing == []
    assert session.inner.memory.held[0, 0, 0][0] == float(third.to(torch.float8_e4m3fn))


@pytest.mark.parametrize(
    "plant",
    [cache.stale_slot, cache.narrow_cache, cache.unwritten_slot, cache.baked_key],
)
def test_without_a_cache_to_reach_a_defect_of_it_is_refused(plant: Any) -> None:
    session = plant(Told(cached=False)).session(MEMBERS, Layout())
    with pytest.raises(UnsupportedError, match="needs a cache that can be reached"):
        run(session, [PROMPTS, FIRST, SECOND])


@pytest.mark.parametrize(
    ("plant", "event"),
    [(windows.writeback_skipped, PROMPTS), (windows.ring_stale_on_reuse, adopt(1, 0, 2))],
)
@pytest.mark.parametrize("cached", [False, True])
def test_without_a_window_a_defect_of_one_is_refused(
    plant: Any, event: Event, cached: bool
) -> None:
    session = plant(Told(cached=cached)).session(MEMBERS, Layout())
    session.inner.forward((chunk(0, 0, 2),), [[1, 2]]).__next__()
    with pytest.raises(UnsupportedError, match="needs layers with a window"):
        run(session, [event])


# what is told to the session

MEMBER = Member("a", 9, 3)
TELLS: dict[str, tuple[Any, list[Member], Layout, Sequence[Event], list[tuple[Step, Any]]]] = {
    "position-off-by-one": (
        rope.position_off_by_one, MEMBERS, Layout(), [PROMPTS, (one(0, 3), chunk(1, 2, 3))],
        [(PROMPTS, None), ((one(0, 3, shift=1), chunk(1, 2, 3)), None)]),
    "decode-at-position-zero": (
        rope.decode_at_position_zero, MEMBERS, Layout(),
        [PROMPTS, (one(0, 3), chunk(1, 2, 3)), (one(0, 4, shift=1),)],
        [(PROMPTS, None), ((one(0, 3, shift=-3), chunk(1, 2, 3)), None),
         ((one(0, 4, shift=-3),), None)]),
    "padding-shifts-positions": (
        rope.padding_shifts_positions, MEMBERS, LEFT, [PROMPTS, FIRST],
        [((chunk(0, 0, 3), chunk(1, 0, 2, shift=1)), None),
         ((one(0, 3), one(1, 2, shift=1)), None)]),
    "padding-shifts-positions: packed": (
        rope.padding_shifts_positions, MEMBERS, Layout(), [PROMPTS, FIRST],
        [(PROMPTS, None), (FIRST, None)]),
    "prefix-shifts-positions": (
        reuse.prefix_shifts_positions, MEMBERS, Layout(),
        [(chunk(0, 0, 3),), adopt(1, 0, 2), (one(0, 3), chunk(1, 2, 4, shift=2))],
        [((chunk(0, 0, 3),), None), ((one(0, 3), chunk(1, 2, 4, shift=3)), None)]),
    "padding-leaks": (
        sequence.padding_leaks, MEMBERS, LEFT, [PROMPTS, FIRST, (chunk(1, 3, 5),)],
        [((chunk(0, 0, 3), Span(1, 0, 3, rows_from=1, rows_to=3)), [[1, 2, 3], [0, 1, 2]]),
         ((one(0, 3), one(1, 3)), [[4], [3]]), ((chunk(1, 4, 6),), [[4, 5]])]),
    "padding-mask-skipped-alone": (
        sequence.padding_mask_skipped_alone, [MEMBER], LEFT, [(chunk(0, 0, 3),), (one(0, 3),)],
        [((Span(0, 0, 8, rows_from=5, rows_to=8),), [[0, 0, 0, 0, 0, 1, 2, 3]]),
         ((one(0, 8),), [[4]])]),
    "padding-mask-skipped-alone: whole eights": (
        sequence.padding_mask_skipped_alone, [Member("a", 9, 8)], LEFT, [(chunk(0, 0, 8),)],
        [((Span(0, 0, 16, rows_from=8, rows_to=16),), [[0] * 8 + [1, 2, 3, 4, 5, 6, 7, 8]])]),
    "padding-mask-skipped-alone: packed": (
        sequence.padding_mask_skipped_alone, [MEMBER], Layout(), [(chunk(0, 0, 3),)],
        [((chunk(0, 0, 3),), None)]),
    "padding-mask-skipped-alone: two": (
        sequence.padding_mask_skipped_alone, MEMBERS, LEFT, [PROMPTS], [(PROMPTS, None)]),
    "wrong-input": (
        sequence.wrong_input, [Member("a", 20, 9), Member("b", 20, 2)], Layout(),
        [(chunk(0, 0, 5), chunk(1, 0, 4)), (chunk(0, 5, 11), one(1, 4))],
        [((chunk(0, 0, 5), chunk(1, 0, 4)), [[2, 3, 4, 5, 6], [2, 3, 3, 4]]),
         ((chunk(0, 5, 11), one(1, 4)), [[7, 8, 9, 0, 0, 1], [5]])]),
}  # fmt: skip


@pytest.mark.parametrize("name", TELLS)
def test_a_defect_of_what_is_told_tells_what_it_says(name: str) -> None:
    plant, members, layout, events, expected = TELLS[name]
    subject = Told()
    run(plant(subject).session(members, layout), events)
    (session,) = subject.sessions
    for (step, ids), (wanted, tokens) in zip(session.told, expected, strict=True):
        assert [(s, s.rows) for s in step] == [
            (Span(w.sequence, w.start, w.stop, w.rows_from, w.decode, w.position_shift, s.rows_to),
             w.rows) for s, w in zip(step, wanted, strict=True)
        ]  # fmt: skip
        assert ids == (ids_of(step) if tokens is None else tokens)
    adopted = [("adopt", 1, 0, 2)] if name.startswith("prefix") else []
    assert session.actions == adopted


def opened(plant: Any, members: list[Member], layout: Layout = LEFT) -> tuple[list[Member], Layout]:
    subject = Told()
    plant(subject).session(members, layout)
    return subject.opened[0]


def test_pads_that_leak_make_their_sequences_longer() -> None:
    assert opened(sequence.padding_leaks, MEMBERS) == (
        [Member("a", 6, 3), Member("b", 7, 3)], LEFT,
    )  # fmt: skip
    alone = sequence.padding_mask_skipped_alone
    assert opened(alone, [MEMBER]) == ([Member("a", 14, 8)], Layout(batch="left", chunk=8))
    long = Layout(batch="left", chunk=9)
    assert opened(alone, [MEMBER], long) == ([Member("a", 14, 8)], long)
    assert opened(alone, MEMBERS) == (MEMBERS, LEFT)
    assert opened(alone, [Member("a", 59, 3)])[0] == [Member("a", 64, 8)]
    with pytest.raises(UnsupportedError, match="has 65 tokens, but the subject has 64 positions"):
        opened(alone, [Member("a", 60, 3)])


def test_spans_and_ids_of_another_number_are_an_error() -> None:
    for plant in (sequence.padding_leaks, sequence.wrong_input):
        with pytest.raises(ValueError, match=r"shorter|longer"):
            list(plant(Told()).session(MEMBERS, Layout()).forward(PROMPTS, [[1, 2, 3]]))


def test_a_pair_without_tokens_gets_other_data() -> None:
    subject = Told()
    subject.vocab = 0
    sequence.wrong_input(subject).session(MEMBERS, Layout())
    assert [m.id for m in subject.opened[0][0]] == ["a/other", "b/other"]
    assert [(m.length, m.prompt) for m in subject.opened[0][0]] == [(6, 3), (6, 2)]


@pytest.mark.parametrize(
    ("ids", "prompt", "back"),
    [
        ([200, 127, 128, 5], 1, [200, 127, 63, 5]),
        ([200, 5, 255], 2, [200, 5, 63]),
        ([200, 5, 6], 1, [200, 5, 63]),  # none is lost: the last stands for one
        ([200, 5, 63], 1, [200, 5, 33]),
        ([5, 6, 200], 3, [5, 6, 63]),
    ],
)
def test_ids_that_went_through_text(ids: list[int], prompt: int, back: list[int]) -> None:
    given = list(ids)
    assert sequence.retokenised(ids, prompt) == back
    assert ids == given


def test_a_planted_session_hands_on_what_it_does_not_change() -> None:
    subject = Told()
    session: Any = rope.position_off_by_one(subject).session(MEMBERS, Layout())
    run(session, [PROMPTS, adopt(1, 0, 2), FIRST])
    session.reset()
    inner = subject.sessions[0]
    assert inner.actions == [("adopt", 1, 0, 2), ("reset",)]
    assert session.cache() is inner.memory
    assert session.observed() == {"told": 2}
    assert list(session.faults()) == []
    inner.faults = lambda: ["a row of nobody's"]
    assert list(session.faults()) == ["a row of nobody's"]
