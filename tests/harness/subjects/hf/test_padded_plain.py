"""Padded batches of transformers against lists of columns, and what no session computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from plain_host import Columns, Host, limits, run, span_ids
from torch import Tensor

from kvparity.plan.schedule import Layout, Member, Span
from kvparity.subjects.base import SubjectError, UnsupportedError
from kvparity.subjects.hf import session as sessions
from kvparity.subjects.hf.session import Packed, Padded

PROMPTS = (2, 6, 3)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_rectangle_is_what_lists_make_of_it(kind: str, side: Any) -> None:
    host, count = Host(kind), len(PROMPTS)
    members = [Member(f"m{i}", p + 6, p) for i, p in enumerate(PROMPTS)]
    session = Padded(host, members, Layout(batch=side, slack=4))
    assert host.asked == [(count, 6 + 6 + 4)]
    lists = [Columns(limit) for limit in limits(kind)]
    at: list[list[int]] = [[] for _ in PROMPTS]
    real: list[list[int]] = [[] for _ in PROMPTS]
    for sizes, tail in ((PROMPTS, 1), ((1, 1, 1), 1), ((2, 1, 3), 1), ((1, 1, 1), 0)):
        width, columns = max(sizes), lists[1].count
        spans, ids, wanted = [], [], []
        for row in (2, 0, 1):  # in an order of its own
            size, filled = sizes[row], len(at[row])
            stop = filled + size
            spans.append(Span(row, filled, stop, stop - tail, position_shift=row))
            ids.append(span_ids(row, filled, stop))
            pads = width - size if side == "left" else 0
            places = range(columns + pads, columns + pads + size)
            at[row] += places
            real[row] += [int(columns + c in places) for c in range(width)]
            if tail:
                wanted.append([ids[-1][-1], stop - 1 + row, places[-1]])
        out = list(session.forward(tuple(spans), ids))
        assert [x.tolist() for x in out] == [[each] for each in wanted]
        call = host.model.calls[-1]
        assert call["mask"].tolist() == real
        flags = torch.tensor(real)[:, columns:].bool()
        assert bool((call["ids"][~flags] == host.pad_token).all())
        assert bool((call["positions"][~flags] == 0).all())
        for span, part in zip(spans, ids, strict=True):
            row = span.sequence
            first = span.start + row
            assert call["ids"][row][flags[row]].tolist() == part
            assert call["positions"][row][flags[row]].tolist() == [*range(first, first + len(part))]
        for each in lists:
            each.run(width)
        view: Any = session.cache()
        for row in range(count):
            assert session.places[row].slots == at[row]
            assert session.places[row].columns == lists[1].count
            for layer in range(2):
                alive = view.live(layer, row)
                held = [p for p, column in enumerate(at[row]) if column in lists[layer].held]
                assert list(alive) == held
                if held:
                    k, _ = view.read(layer, row, alive.start, alive.stop)
                    told = span_ids(row, alive.start, alive.stop)
                    assert (k[:, 0, 0] - layer).tolist() == told
    with pytest.raises(UnsupportedError, match="one sequence of a padded batch cannot be"):
        view.truncate(0, 1)


def test_one_sequence_alone_in_a_rectangle_goes_back() -> None:
    session = Padded(Host(), [Member("m", 9, 3)], Layout(batch="left"))
    run(session, 0, 0, 3)
    view: Any = session.cache()
    view.truncate(0, 2)
    assert [*view.live(1, 0)] == [0, 1]


@pytest.mark.parametrize(
    ("kind", "slack", "fits"), [("dynamic", 0, 9), ("static", 0, 6), ("static", 2, 8)]
)
def test_a_static_rectangle_is_full_when_it_is_full(kind: str, slack: int, fits: int) -> None:
    """Pads take room, too: only a dynamic cache grows beyond the longest sequence."""
    members = [Member("a", 6, 4), Member("b", 6, 1)]
    session = Padded(Host(kind), members, Layout(batch="left", slack=slack))
    run_both(session, (0, 4), (0, 1))
    filled = 4
    for start in range(4, 9):
        if filled + 1 > fits:
            with pytest.raises(SubjectError, match=f"has {fits} slots, but .* needs {fits + 1};"):
                run_both(session, (start, start + 1), (start - 3, start - 2))
            return
        run_both(session, (start, start + 1), (start - 3, start - 2))
        filled += 1
    assert kind == "dynamic"


def run_both(session: Padded, one: tuple[int, int], other: tuple[int, int]) -> list[Tensor]:
    step = tuple(Span(i, a, b, b - 1) for i, (a, b) in enumerate((one, other)))
    return list(session.forward(step, [span_ids(i, a, b) for i, (a, b) in enumerate((one, other))]))


# What is refused

A, B = Member("a", 4, 1), Member("b", 4, 1)


@pytest.mark.parametrize(
    ("layout", "spans", "said"),
    [
        (Layout(), [(0, 0, 4)], None),
        (Layout(), [(0, 0, 2)], None),
        (Layout(), [(0, 0, 2), (1, 0, 2)], "a packed step of 2 sequences"),
        (Layout(cached=False), [(0, 0, 4)], None),
        (Layout(cached=False), [(1, 0, 3)], "without one it must be computed at once"),
        (Layout(cached=False), [(0, 1, 4)], "without one it must be computed at once"),
        (Layout(batch="left"), [(1, 0, 4), (0, 0, 2)], None),
        (Layout(batch="left"), [(1, 0, 4)], "a padded step with 1 of 2 sequences"),
        (Layout(batch="left"), [(1, 0, 4), (1, 0, 4)], "a padded step with 2 of 2 sequences"),
        (Layout(batch="right", cached=False), [(0, 0, 4), (1, 0, 4)], "a padded batch without a"),
    ],
)
def test_what_one_forward_cannot_compute_is_said(
    layout: Layout, spans: list[tuple[int, int, int]], said: str | None
) -> None:
    step = tuple(Span(*each, each[1]) for each in spans)
    found = sessions.refused(layout, [A, B], step)
    assert found is None if said is None else said in str(found)
    if said is not None:
        kind = Packed if layout.batch == "packed" else Padded
        with pytest.raises(UnsupportedError, match=said):
            list(kind(Host(), [A, B], layout).forward(step, [[1] * (b - a) for _, a, b in spans]))


@pytest.mark.parametrize(
    ("start", "ids", "words"),
    [
        (1, [1], "a is filled to 2, but a span starts at 1"),
        (3, [1], "a is filled to 2, but a span starts at 3"),
        (2, [1, 2], r"a: 2 ids for 2\.\.3"),
        (2, [], r"a: 0 ids for 2\.\.3"),
    ],
)
def test_a_span_that_does_not_follow_is_refused(start: int, ids: list[int], words: str) -> None:
    session = Packed(Host(), [A, B], Layout())
    run(session, 0, 0, 2)
    with pytest.raises(ValueError, match=words):
        list(session.forward((Span(0, start, max(3, start + 1), start),), [ids]))
