"""Sessions and caches of transformers against lists of columns: what is held, and what is asked."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from plain_host import WINDOW, Columns, Host, Model, limits, run, span_ids
from transformers import Cache, DynamicCache, StaticCache
from transformers_listening import Everything

from kvparity.core.relied.transformers import counts_tokens, unreset
from kvparity.plan.schedule import Layout, Member, Span
from kvparity.subjects import events
from kvparity.subjects.base import SubjectError, UnsupportedError
from kvparity.subjects.hf import session as sessions
from kvparity.subjects.hf.session import Packed, Padded

RECORDS = hasattr(DynamicCache, "activate_past_recording")


def same(view: Any, layer: int, sequence: int, columns: Columns, at: list[int]) -> None:
    """``at``: the column of each position."""
    held = [p for p, column in enumerate(at) if column in columns.held]
    alive = view.live(layer, sequence)
    assert list(alive) == held, (layer, sequence)
    if held:
        k, v = view.read(layer, sequence, alive.start, alive.stop)
        ids = span_ids(sequence, alive.start, alive.stop)
        told = torch.tensor([[i, p] for i, p in zip(ids, alive, strict=True)]).float() + layer
        assert k[:, 0].equal(told)
        assert v[:, 0].equal(-told)
    if held and held[0]:
        with pytest.raises(UnsupportedError, match=f"which holds {held[0]}"):
            view.read(layer, sequence, held[0] - 1, held[-1] + 1)
    if at and held:
        with pytest.raises(UnsupportedError, match="are not all in layer"):
            view.read(layer, sequence, held[0], held[-1] + 2)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("seed", range(20))
def test_a_cache_holds_what_lists_hold(kind: str, seed: int) -> None:
    """Two sequences that go on, go back and begin again, in some order."""
    host, chance = Host(kind, unused=-0.5), random.Random(seed)
    members = [Member(f"m{i}", 60, 1) for i in range(2)]
    session = Packed(host, members, Layout())
    view: Any = session.cache()
    lists = [[Columns(limit) for limit in limits(kind)] for _ in members]
    refused = 0
    for _ in range(14):
        sequence = chance.randrange(2)
        place, mine = session.places[sequence], lists[sequence]
        filled = len(place.slots)
        what = chance.choice(
            ["run", "run", "run", "cut", "cut", "reset" if seed % 3 == 0 else "run"]
        )
        if what == "run" and filled < 45:
            stop = filled + chance.choice([1, 1, 2, 3, WINDOW, WINDOW + 3])
            run(session, sequence, filled, stop)
            for each in mine:
                each.run(stop - filled)
        elif what == "cut" and filled:
            last = mine[1].last or 1
            keep = max(1, chance.choice([last, last, last - 1, last + 1, filled - 1, filled, 99]))
            if mine[0].cut(keep, WINDOW - 1):
                view.truncate(sequence, keep)
                mine[1].cut(keep, None)
                assert place.columns == min(filled, keep)
                if kind == "static" and counts_tokens(place.cache.layers[0]) and keep < filled:
                    emptied(place.cache, mine, keep, filled)
            else:
                refused += 1
                with pytest.raises(UnsupportedError, match=f"going back to {keep} tokens needs"):
                    view.truncate(sequence, keep)
                return  # a cache that was refused may be half way
        elif what == "reset" and not (kind == "dynamic" and unreset()):
            session.reset()
            for each in lists:
                for layer in each:
                    layer.clear()
            assert [(p.slots, p.columns, p.before, p.lost) for p in session.places] == [
                ([], 0, {}, {})
            ] * 2
        for number, each in enumerate(lists):
            if session.places[number].slots:
                for layer in range(2):
                    same(view, layer, number, each[layer], session.places[number].slots)


def emptied(cache: Any, lists: list[Columns], keep: int, filled: int) -> None:
    """What was forgotten is not there: slots that hold no column hold what unused ones do."""
    sliding, full = cache.layers
    for x in (full.keys, full.values):
        assert bool((x[:, :, keep:filled] == -0.5).all())
        assert not bool((x[:, :, :keep] == -0.5).any())
    offset = max(0, keep - WINDOW)
    there = {column - offset for column in lists[0].held}
    for x in (sliding.keys, sliding.values):
        for slot in range(x.shape[2]):
            assert bool((x[:, :, slot] == -0.5).all()) == (slot not in there)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("shared", [1, WINDOW - 1, WINDOW, 2 * WINDOW])
@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_a_prefix_is_a_copy_that_goes_on(kind: str, shared: int, ahead: int) -> None:
    """``ahead``: how many tokens more the donor has."""
    if kind == "dynamic" and not RECORDS and shared + ahead > WINDOW:
        pytest.skip("transformers 4 keeps no past")
    host = Host(kind)
    members = [Member("m", shared + 9, shared), Member("d", shared + 3, shared + 2, "m", shared)]
    session = Packed(host, members, Layout(slack=2))
    run(session, 1, 0, shared + ahead)
    # A copy has room for the longer one that goes on with it.
    assert host.asked == [(1, shared + 9 + 2)]
    donor = session.places[1]
    recording = getattr(donor.cache.layers[0], "record_past", False)
    assert recording == (kind == "dynamic" and RECORDS)
    columns = Columns(None if recording else limits(kind)[0])
    columns.run(shared + ahead)
    if kind == "static" and shared + ahead > WINDOW and ahead > 1:
        with pytest.raises(UnsupportedError, match="going back to"):
            session.adopt(0, 1, shared)
        return
    session.adopt(0, 1, shared)
    mine, view = session.places[0], session.cache()
    assert mine.cache is not donor.cache
    assert (mine.row, mine.slots, mine.columns) == (0, [*range(shared)], shared)
    with pytest.raises(ValueError, match="m is not empty and cannot adopt"):
        session.adopt(0, 1, shared)
    ids = [*span_ids(1, 0, shared), *span_ids(0, shared, shared + 3)]
    list(session.forward((Span(0, shared, shared + 2, shared),), [ids[shared : shared + 2]]))
    list(session.forward((Span(0, shared + 2, shared + 3, shared + 2),), [ids[shared + 2 :]]))
    for layer in range(2):
        alive = view.live(layer, 0)
        assert alive.stop == shared + 3
        assert alive.start <= (max(0, alive.stop - WINDOW + 1) if layer == 0 else 0)
        k, _ = view.read(layer, 0, alive.start, alive.stop)
        assert (k[:, 0, 0] - layer).tolist() == ids[alive.start :]
        assert (k[:, 0, 1] - layer).tolist() == [*alive]
        # The donor's own is as it was.
        assert donor.columns == shared + ahead
        first = view.live(layer, 1).start
        k, _ = view.read(layer, 1, first, shared + ahead)
        assert (k[:, 0, 0] - layer).tolist() == span_ids(1, first, shared + ahead)


def test_rows_are_those_of_the_span_and_the_model_is_told_the_rest() -> None:
    host = Host()
    session = Packed(host, [Member("m", 12, 1)], Layout())
    (rows,) = run(session, 0, 0, 4, rows_from=2)
    assert rows.dtype == torch.float32
    assert rows.tolist() == [[102, 2, 2], [103, 3, 3]]
    shifted = Span(0, 4, 7, 5, rows_to=6, position_shift=3)
    (rows,) = session.forward((shifted,), [[7, 8, 9]])
    assert rows.tolist() == [[8, 8, 5]]
    assert run(session, 0, 7, 9, rows_from=9) == []
    first, second, third = host.model.calls
    assert first["ids"].tolist() == [span_ids(0, 0, 4)]
    assert first["positions"].tolist() == [[0, 1, 2, 3]]
    assert (first["logits_to_keep"], third["logits_to_keep"]) == (0, 1)
    assert (first["use_cache"], first["mask"]) == (True, None)
    assert second["positions"].tolist() == [[7, 8, 9]]
    assert session.places[0].slots == [*range(9)]


def test_rows_come_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "ROWS", 3)
    session = Packed(Host(), [Member("m", 12, 1)], Layout())
    blocks = run(session, 0, 0, 8, rows_from=1)
    assert [len(each) for each in blocks] == [3, 3, 1]
    assert torch.cat(blocks)[:, 2].tolist() == [*range(1, 8)]


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_a_sequence_in_one_whole_has_the_cache_that_the_model_makes(kind: str) -> None:
    host = Host(kind)
    session = Packed(host, [Member("a", 5, 1), Member("b", 9, 1)], Layout(slack=3))
    run(session, 0, 0, 5)
    run(session, 1, 0, 5)
    assert host.asked == [(1, None), (1, 12)]
    assert type(session.places[0].cache) is DynamicCache
    first = session.places[1].cache
    assert type(first) is (DynamicCache if kind == "dynamic" else StaticCache)
    assert getattr(session.places[1].cache.layers[0], "record_past", False) is False
    if kind == "dynamic" and unreset():
        return
    session.reset()
    run(session, 1, 0, 4)  # the same cache once more, and for a whole sequence the model's
    assert session.places[1].cache is first
    session.reset()
    run(session, 1, 0, 9)
    assert type(session.places[1].cache) is DynamicCache
    assert (session.places[1].cache is first) == (kind == "dynamic")


def test_without_a_cache_nothing_is_kept() -> None:
    host = Host()
    session = Packed(host, [Member("m", 4, 1)], Layout(cached=False))
    run(session, 0, 0, 4)
    assert host.asked == []
    assert host.model.calls[0]["use_cache"] is False
    assert session.cache() is None
    other = Packed(host, [Member("m", 4, 1)], Layout(cached=False))
    host.model.made = DynamicCache()
    with pytest.raises(SubjectError, match="Model made a cache although it was called without one"):
        run(other, 0, 0, 4)
    run(Packed(host, [Member("m", 4, 1)], Layout()), 0, 0, 4)


def test_a_forward_without_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: Any, **inputs: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("no more")

    session = Packed(Host(), [Member("m", 4, 1)], Layout())
    monkeypatch.setattr(type(session.host.model), "__call__", none)
    with pytest.raises(SubjectError, match="forward is out of device memory: no more"):
        run(session, 0, 0, 4)


class Bare(Model):
    """Its forward keeps all logits."""

    def forward(  # type: ignore[override]
        self, input_ids: Any, position_ids: Any, past_key_values: Any, use_cache: Any
    ) -> Any:
        return super().forward(input_ids, position_ids, past_key_values, None, use_cache)


def test_a_model_that_keeps_all_logits_is_not_asked_for_one() -> None:
    host = Host()
    host.model = Bare()
    session = Packed(host, [Member("m", 9, 1)], Layout())
    assert run(session, 0, 0, 4, rows_from=4) == []


def test_a_listener_is_told_of_its_own_calls() -> None:
    host = Host()
    session = Packed(host, [Member("a", 9, 1), Member("b", 9, 1)], Layout())
    run(session, 1, 0, 2)
    with events.listening(heard := Everything()):
        listening = events.current()
        run(session, 1, 2, 4)
        assert session.seen.emitter is None
    run(session, 1, 4, 5)
    first, second, third = host.emitters
    assert first is third is None
    assert (second.listener, second.sequence, second.next) == (listening, 1, 2)
    assert second.config is session.config
    padded = Padded(host, [Member("m", 9, 1)], Layout(batch="left"))
    with events.listening(heard), pytest.raises(UnsupportedError, match="inside a padded batch"):
        run(padded, 0, 0, 2)


def test_each_span_has_its_ids() -> None:
    session = Packed(Host(), [Member("m", 9, 1)], Layout())
    with pytest.raises(ValueError, match="zip"):
        list(session.forward((Span(0, 0, 2, 0),), [[1, 2], [3]]))


def test_the_configuration_is_that_of_the_text_that_is_decoded() -> None:
    host = Host()
    both = SimpleNamespace(get_text_config=lambda decoder: "text" if decoder else "other")
    host.model.config = both  # type: ignore[misc]
    assert Packed(host, [Member("m", 9, 1)], Layout()).config == "text"


def test_a_cache_that_records_nothing_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    if RECORDS:  # as before transformers 5
        monkeypatch.delattr(Cache, "activate_past_recording")
    members = [Member("m", 9, 3), Member("d", 5, 4, "m", 3)]
    assert len(run(Packed(Host(), members, Layout()), 1, 0, 4)) == 1
