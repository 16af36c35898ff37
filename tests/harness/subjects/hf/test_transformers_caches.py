"""What transformers' caches hold, and what its attention was given, seen through the seam."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from tiny_transformers import family, same_bits
from torch import Tensor
from transformers import DynamicCache
from transformers_families import WINDOW
from transformers_listening import IDS, Everything, equal, open_session, run, written

from kvparity.core.relied.transformers import counts_tokens, unreset
from kvparity.plan.schedule import Layout, Member, Span
from kvparity.subjects import events
from kvparity.subjects.base import LayeredCache, Reusable, UnsupportedError

LENGTH = 2 * WINDOW + 5
SLIDING = ("mistral", "gemma2", "gemma3", "gemma3n", "gemma4", "gpt_oss")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("name", SLIDING)
def test_a_window_holds_its_newest_keys_at_their_positions(name: str, kind: str) -> None:
    session, heard = open_session(family(name, "eager", kind), LENGTH + 9), Everything()
    view = session.cache()
    assert isinstance(view, LayeredCache)
    cuts = [0, 3, WINDOW - 1, WINDOW, WINDOW + 1, WINDOW + 6, LENGTH - 1, LENGTH]
    for a, b in pairwise(cuts):
        with events.listening(heard):
            run(session, [a, b])
        for layer in range(view.layers()):
            keeps = WINDOW - 1 if kind == "dynamic" else WINDOW
            first = max(0, b - keeps) if view.window(layer) == WINDOW else 0
            assert view.live(layer, 0) == range(first, b)
            assert equal(view.read(layer, 0, first, b), written(heard, layer, first, b))
            if b - first > 1:  # the control: one position further is something else
                off = written(heard, layer, first + 1, b), view.read(layer, 0, first, b - 1)
                assert not equal(*off)
            if first:
                with pytest.raises(UnsupportedError, match=f"which holds {first}..{b}"):
                    view.read(layer, 0, first - 1, b)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("name", ["gemma3n", "gemma4"])
def test_layers_that_share_keys_store_none(name: str, kind: str) -> None:
    session = open_session(family(name, "eager", kind), LENGTH)
    run(session, [0, 4])
    view = session.cache()
    assert view.layers() == 2
    assert [view.owner(layer) for layer in range(4)] == [0, 1, 0, 1]
    assert [view.window(layer) for layer in range(2)] == [WINDOW, None]
    k, v = view.read(1, 0, 0, 4)
    assert k.shape == v.shape == (4, 2, 32 if name == "gemma4" else 16)
    assert view.round_trip(1, k, v) == (k, v)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("name", ["mistral", "gemma4"])
@pytest.mark.parametrize("filled", [WINDOW - 1, WINDOW, LENGTH])
def test_a_written_key_moves_the_rows_that_see_it(name: str, kind: str, filled: int) -> None:
    def last_row(position: int | None) -> Tensor:
        session = open_session(family(name, "eager", kind), LENGTH + 2)
        run(session, [0, filled])
        view = session.cache()
        if position is not None:
            k, v = view.read(0, 0, position, position + 1)
            view.write(0, 0, position, k + 1, -v)
            assert equal(view.read(0, 0, position, position + 1), (k + 1, -v))
        return run(session, [filled, filled + 1])

    clean = last_row(None)
    assert same_bits(clean, last_row(None))
    first = max(0, filled - WINDOW + 1)
    assert not same_bits(clean, last_row(first))
    assert not same_bits(clean, last_row(filled - 1))
    if kind == "static" and first:  # the oldest slot is seen by nobody any more
        assert same_bits(clean, last_row(first - 1))


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("name", ["mistral", "gemma3n", "gpt_oss", "llama"])
@pytest.mark.parametrize(("start", "stop"), [(3, 4), (5, WINDOW + 1), (11, 12), (10, LENGTH)])
def test_going_back_one_call_gives_the_same_rows(
    name: str, kind: str, start: int, stop: int
) -> None:
    session = open_session(family(name, "eager", kind), LENGTH + 2)
    run(session, [0, start])
    view = session.cache()
    before = [view.read(i, 0, max(0, start - 3), start) for i in range(view.layers())]
    first = run(session, [start, stop])
    view.truncate(0, start)
    for layer, expected in enumerate(before):
        assert view.live(layer, 0).stop == start
        assert equal(view.read(layer, 0, max(0, start - 3), start), expected)
    assert same_bits(run(session, [start, stop]), first)
    view.truncate(0, start)
    k, v = view.read(0, 0, start - 1, start)
    view.write(0, 0, start - 1, k + 1, v)
    assert not same_bits(run(session, [start, stop]), first)


def test_a_written_key_survives_going_back() -> None:
    for kind in ("dynamic", "static"):
        session = open_session(family("mistral", "eager", kind), LENGTH + 2)
        run(session, [0, 12])
        view = session.cache()
        k, v = view.read(0, 0, 11, 12)
        view.write(0, 0, 11, k + 1, v)
        run(session, [12, 13])
        view.truncate(0, 12)
        assert equal(view.read(0, 0, 11, 12), (k + 1, v))


def test_a_window_does_not_go_back_further_than_it_can() -> None:
    session = open_session(family("mistral", "eager"), LENGTH + 2)
    run(session, [0, 12, 13, 14])
    with pytest.raises(UnsupportedError, match="going back to 10 tokens needs column 3"):
        session.cache().truncate(0, 10)
    padded = family("llama", "eager").session(
        [Member("a", 4), Member("b", 4)], Layout(batch="left")
    )
    step = (Span(0, 0, 3, rows_from=3), Span(1, 0, 3, rows_from=3))
    list(padded.forward(step, [IDS[:3], IDS[3:6]]))
    with pytest.raises(UnsupportedError, match="one sequence of a padded batch"):
        padded.cache().truncate(0, 2)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("name", ["llama", "mistral", "gemma4", "gpt_oss"])
def test_a_reset_session_computes_as_a_fresh_one(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.cache_utils import CacheLayerMixin

    subject, cuts = family(name, "eager", kind), [0, 5, 6, WINDOW + 3, WINDOW + 4]

    def used() -> Tensor:
        session = open_session(subject, LENGTH)
        assert isinstance(session, Reusable)
        run(session, [0, 7, WINDOW + 4])
        session.reset()
        assert session.cache().places[0].slots == []
        return run(session, cuts)

    fresh = run(open_session(subject, LENGTH), cuts)
    if kind == "dynamic" and unreset():  # transformers 4
        with pytest.raises(UnsupportedError, match="keeps as many keys as there were"):
            used()
        return
    assert same_bits(used(), fresh)
    counted = all(map(counts_tokens, subject.new_cache(batch=1, capacity=LENGTH).layers))
    if kind == "static" and counted:  # the control: a reset that forgets nothing of a layer
        monkeypatch.setattr(CacheLayerMixin, "reset", lambda self: None)
        with pytest.raises((RuntimeError, AssertionError, IndexError)):
            assert same_bits(used(), fresh)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("name", ["llama", "mistral", "gemma3n", "gemma4"])
@pytest.mark.parametrize("shared", [4, WINDOW + 5])
def test_a_shared_prefix_goes_on_as_its_own(name: str, kind: str, shared: int) -> None:
    subject = family(name, "eager", kind)
    members = [Member("m", LENGTH, shared), Member("d", shared + 2, shared + 1, "m", shared)]

    def adopted(prefix: list[int]) -> Tensor:
        session = subject.session(members, Layout())
        own = [*prefix, 9]
        list(session.forward((Span(1, 0, shared + 1, rows_from=shared + 1),), [own]))
        session.adopt(0, 1, shared)
        with pytest.raises(ValueError, match="not empty"):
            session.adopt(0, 1, shared)
        first = run(session, [shared, shared + 3])
        list(session.forward((Span(1, shared + 1, shared + 2, shared + 1, decode=True),), [[7]]))
        return torch.cat([first, run(session, [shared + 3, shared + 4, LENGTH])])

    cuts = [0, shared, shared + 3, shared + 4, LENGTH]
    expected = run(subject.session(members, Layout()), cuts)[shared:]
    slides = name != "llama" and kind == "dynamic" and shared > WINDOW
    if slides and not hasattr(DynamicCache, "activate_past_recording"):  # transformers 4
        with pytest.raises(UnsupportedError, match="cannot be taken over: Cannot `crop`"):
            adopted(IDS[:shared])
        return
    found = adopted(IDS[:shared])
    # Other shapes (a longer prompt of the donor), so other sums: noise, no bits.
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    wrong = adopted([*IDS[: shared - 1], 3])
    assert (wrong - expected).abs().max() > 1e-2 * expected.abs().max()


def test_a_donor_that_did_not_record_its_past_says_so() -> None:
    session = open_session(family("mistral", "eager"), LENGTH, LENGTH)
    run(session, [0, 12], sequence=1)
    with pytest.raises(UnsupportedError, match="first 9 of 12 tokens cannot be taken over"):
        session.adopt(0, 1, 9)


def test_without_a_cache_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = family("gemma4", "eager")
    session = open_session(subject, LENGTH, cached=False)
    rows = run(session, [0, LENGTH])
    assert session.cache() is None
    assert session.observed()["cache.none"] == 1
    cached = run(open_session(subject, LENGTH), [0, 9, LENGTH])
    assert (rows - cached).abs().max() < 1e-4 * rows.abs().max()
    with pytest.raises(UnsupportedError, match="without one it must be computed at once"):
        run(open_session(subject, LENGTH, cached=False), [0, 4])


@pytest.mark.parametrize(
    ("name", "attention", "kind"),
    [
        ("gpt_oss", "kvparity", "dynamic"),
        ("gemma4", "kvparity", "static"),
        ("mistral", "sdpa", "dynamic"),
        ("gemma3n", "sdpa", "static"),
    ],
)
def test_fixed_order_arithmetic_gives_windows_the_bits_of_prefill(
    name: str, attention: str, kind: str
) -> None:
    """Sinks over a window that drops keys; shared layers over windows that roll."""
    subject = family(name, attention, kind)
    free = run(open_session(subject, LENGTH), [0, LENGTH])
    subject.invariant = True
    try:
        whole = run(open_session(subject, LENGTH), [0, LENGTH])
        parts = run(
            open_session(subject, LENGTH), [0, 5, WINDOW + 1, 2 * WINDOW + 3, LENGTH - 1, LENGTH]
        )
    finally:
        subject.invariant = False
    assert same_bits(parts, whole)
    assert (free - whole).abs().max() < 1e-4 * whole.abs().max()
    assert not same_bits(run(open_session(subject, LENGTH), [0, 5, LENGTH]), whole)  # torch's order
