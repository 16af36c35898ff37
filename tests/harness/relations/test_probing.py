"""Which places liveness probes, how loudly, and what it makes of rows that hear or do not hear."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from kvparity.plan.schedule import Layout, Member, Plan, Span, Step
from kvparity.relations.liveness.line import ChangedKey
from kvparity.relations.liveness.probing import Prober

DIM = 5
Hears = Callable[[int, int, int], bool]  # (layer, head, position)
Change = tuple[int, int, int, Tensor, Tensor]  # layer, sequence, position, k, v


class Store:
    """Keys and values ``[layers, sequences, positions, 2, heads, DIM]``, and a session of it."""

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        heads: int = 1,
        windows: Sequence[int | None] = (None,),
        hears: Hears | None = None,
        through: Callable[[Tensor], Tensor] = lambda kv: kv,
        rounds: Callable[[Tensor], Tensor] = lambda x: x,
        oldest: int = 0,
        stale: bool = False,
        size: float = 1.0,
    ) -> None:
        self.windows, self.heads, self.hears = tuple(windows), heads, hears
        self.through, self.rounds, self.oldest, self.stale = through, rounds, oldest, stale
        shape = (len(windows), len(lengths), max(lengths), 2, heads, DIM)
        given = torch.Generator().manual_seed(5)
        self.right = size * (torch.rand(shape, generator=given) + 0.1)
        self.kv = torch.full(shape, torch.nan)
        self.filled = [0] * len(lengths)
        self.changes: list[Change] = []
        self.wanted: list[list[list[int]]] = []

    # a session

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        self.wanted.append([list(span.rows) for span in step])
        for span in step:
            assert span.start == self.filled[span.sequence], "a step that goes on elsewhere"
            own = slice(span.start, span.stop)
            self.kv[:, span.sequence, own] = self.right[:, span.sequence, own]
            self.filled[span.sequence] = span.stop
        for span in step:
            for row in span.rows:
                yield self._row(span.sequence, row)

    def _row(self, sequence: int, row: int) -> Tensor:
        heard = []
        for layer, window in enumerate(self.windows):
            for head in range(self.heads):
                for position in range(row + 1):
                    seen = window is None or position > row - window
                    if seen if self.hears is None else self.hears(layer, head, position):
                        heard.append(self.through(self.kv[layer, sequence, position, :, head]))
        return torch.cat([each.reshape(-1) for each in [torch.zeros(1), *heard]])[None]

    def cache(self) -> Store:
        return self

    # a layered cache

    def layers(self) -> int:
        return len(self.windows)

    def window(self, layer: int) -> int | None:
        return self.windows[layer]

    def owner(self, model_layer: int) -> int:
        return model_layer

    def live(self, layer: int, sequence: int) -> range:
        last = self.kv.shape[2] if self.stale else self.filled[sequence]
        return range(self.oldest, last)

    def round_trip(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return k, v

    def read(self, layer: int, sequence: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        k, v = self.kv[layer, sequence, start:stop].unbind(1)
        return k.clone(), v.clone()

    def write(self, layer: int, sequence: int, start: int, k: Tensor, v: Tensor) -> None:
        assert len(k) == len(v) == 1, "one place is probed at a time"
        now = self.kv[layer, sequence, start]
        if not torch.equal(now, torch.stack([k[0], v[0]])):
            self.changes.append((layer, sequence, start, k[0].clone(), v[0].clone()))
        now[0], now[1] = self.rounds(k[0]), self.rounds(v[0])

    def truncate(self, sequence: int, length: int) -> None:
        self.filled[sequence] = length
        self.kv[:, sequence, length:] = torch.nan

    def probed(self, layer: int = 0, sequence: int = 0) -> set[int]:
        """Positions that were changed."""
        return {place[2] for place in self.changes if place[:2] == (layer, sequence)}


def members(*lengths: int) -> tuple[Member, ...]:
    return tuple(Member(f"w/{number}", length, 1) for number, length in enumerate(lengths))


def run(store: Store, *steps: Step, **more: Any) -> Prober:
    """All steps of a plan, and the probes after them."""
    plan = Plan(members(*([store.kv.shape[2]] * store.kv.shape[1])), steps, Layout())
    prober = Prober(plan, **{"edges": (), **more})
    prober.opened(store)  # type: ignore[arg-type] # a session as far as a prober goes
    for step in steps:
        list(store.forward(step, ()))
        prober.stepped(store, step, [()] * len(step))  # type: ignore[arg-type]
    return prober


def one(start: int, stop: int | None = None, sequence: int = 0) -> tuple[Step, Step]:
    """What is cached, and a step that sees it."""
    stop = start + 1 if stop is None else stop
    return (
        (Span(sequence, 0, start, start),),
        (Span(sequence, start, stop, start, decode=stop == start + 1),),
    )


def places(start: int, row: int, window: int | None, edges: Sequence[int], oldest: int) -> set[int]:
    """Which positions are worth a probe, looked at one by one."""
    found = set()
    for position in range(oldest, start):
        worth = position in (0, 1) or start - position in (1, 2) or position == oldest
        if window is not None:
            first = row - window + 1  # the oldest that the row sees
            worth |= first - 2 <= position <= first + 1
        for edge in edges:
            last = max(multiple for multiple in range(0, start, edge))
            worth |= abs(position - edge) <= 1 or abs(position - last) <= 1
        if worth:
            found.add(position)
    return found


@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize("window", [None, 1, 2, 9])
@pytest.mark.parametrize(
    ("start", "stop", "edges", "oldest"),
    [
        (30, 31, (), 0),
        (30, 34, (), 0),
        (30, 31, (8,), 0),
        (32, 33, (8,), 0),
        (33, 34, (8, 5), 0),
        (30, 32, (7, 11), 13),
        (3, 4, (8,), 0),
        (1, 2, (8,), 0),
    ],
)
def test_the_places_worth_a_probe_are_probed_and_no_others(
    start: int, stop: int, edges: tuple[int, ...], oldest: int, window: int | None, stale: bool
) -> None:
    store = Store([40], windows=[window], oldest=oldest, stale=stale)
    prober = run(store, *one(start, stop), edges=edges)
    wanted = places(start, stop - 1, window, edges, oldest)
    assert store.probed() == wanted
    assert prober.found.probes == len(wanted)
    seen = {p for p in wanted if window is None or p > stop - 1 - window}
    assert prober.found.visible == len(seen)
    assert (prober.found.dead, prober.found.ghosts, prober.found.unseen) == ([], [], [])
    assert prober.found.unsteady is None


@pytest.mark.parametrize("size", [0.01, 1.0, 7.0])
def test_a_change_is_loud_in_signs_by_column_and_only_of_its_head(size: float) -> None:
    store = Store([4], heads=3, hears=lambda *_: False, size=size)
    run(store, *one(1))
    signs = torch.tensor([[1, -1, 1, -1, 1], [-1, 1, -1, 1, -1], [1, 1, 1, 1, 1]]).float()
    right = store.right[0, 0, 0]
    expected = []
    for head in range(3):
        for sign in signs:
            changed = right.clone()
            for part in (0, 1):
                changed[part, head] = sign * 64 * max(1.0, float(right[part].abs().max()))
            expected.append(changed)
        expected.append(right)  # put back
    assert len(store.changes) == len(expected)
    for (*_, k, v), wanted in zip(store.changes, expected, strict=True):
        assert torch.equal(torch.stack([k, v]), wanted)


@pytest.mark.parametrize("sign", [0, 1, 2])
def test_a_place_that_hears_one_of_the_changes_is_heard(sign: int) -> None:
    """A ReLU may hide what is negative in one column."""
    heard = [(1, -1), (-1, 1), (1, 1)][sign]

    def through(kv: Tensor) -> Tensor:
        return torch.tensor([float(all(s * x > 60 for s, x in zip(heard, kv[0, :2], strict=True)))])

    found = run(Store([4], through=through), *one(3)).found
    assert (found.probes, found.visible, found.dead) == (3, 3, [])
    nothing = run(Store([4], through=lambda kv: torch.ones(1)), *one(3)).found
    assert len(nothing.dead) == 3


def test_a_store_that_rounds_what_it_is_given_back_is_steady() -> None:
    found = run(Store([9], rounds=lambda x: (x * 4).round() / 4), *one(8)).found
    assert (found.unsteady, found.dead, found.ghosts) == (None, [], [])
    assert found.probes == found.visible == 4


@pytest.mark.parametrize(("asked", "layers"), [(None, {0, 1, 2}), ([1], {1}), ([0, 2], {0, 2})])
def test_the_layers_that_were_asked_for_are_probed(asked: Any, layers: set[int]) -> None:
    store = Store([9], windows=[None, 3, 5])
    found = run(store, *one(8), layers=asked).found
    assert {layer for layer in range(3) if store.probed(layer)} == layers
    assert (found.dead, found.ghosts, found.unsteady) == ([], [], None)
    visible = [4, 2, 2 + 2]  # of 0, 1, 6, 7; of 0, 1, 4, 5, 6, 7 those behind 5; those behind 3
    assert found.visible == sum(visible[layer] for layer in layers)


@pytest.mark.parametrize(
    ("layer", "head", "position", "hidden"), [(1, 0, 0, False), (0, 1, 7, False), (1, 1, 5, True)]
)
def test_the_place_that_is_heard_otherwise_is_named(
    layer: int, head: int, position: int, hidden: bool
) -> None:
    windows = (None, 3) if hidden else (None, None)

    def hears(*place: int) -> bool:
        shown = windows[place[0]] is None or place[2] > 5
        return shown ^ (place == (layer, head, position))

    found = run(Store([9], heads=2, windows=windows, hears=hears), *one(8)).found
    wrong = [ChangedKey(sequence="w/0", row=8, layer=layer, head=head, position=position)]
    assert (found.dead, found.ghosts) == (([], wrong) if hidden else (wrong, []))
    assert found.unseen == []


def test_a_layer_that_is_not_heard_at_all_is_named_and_one_that_shows_nothing_is_not() -> None:
    store = Store([9], windows=[None, None, 1], hears=lambda layer, *_: layer == 0)
    assert run(store, *one(8)).found.unseen == ["layer 1, by row 8 of w/0"]


TWO: tuple[Step, ...] = (
    (Span(0, 0, 3, 2), Span(1, 0, 2, 2)),
    (Span(0, 3, 4, 3, decode=True), Span(1, 2, 5, 3)),
    (Span(1, 5, 6, 5, decode=True), Span(2, 0, 3, 0)),
    (Span(2, 3, 4, 3, decode=True),),
    (Span(1, 6, 7, 7),),
)


def test_the_last_wanted_row_of_each_sequence_is_probed_and_all_is_put_back() -> None:
    store = Store([7] * 3)
    found = run(store, *TWO, edges=(2,)).found
    rows = [(0, 3), (1, 5), (2, 3)]
    assert {sequence for _, sequence, *_ in store.changes} == {sequence for sequence, _ in rows}
    assert found.probes == sum(len(places(row, row, None, (2,), 0)) for _, row in rows)
    assert (found.dead, found.ghosts, found.unsteady) == ([], [], None)
    for sequence, filled in enumerate((4, 7, 4)):
        assert store.filled[sequence] == filled
        right = store.right[:, sequence, :filled]
        assert torch.equal(store.kv[:, sequence, :filled], right)
    again = [rows for rows in store.wanted if rows not in [[list(s.rows) for s in t] for t in TWO]]
    assert all(sum(map(len, rows)) == 1 for rows in again)  # only the probed row is computed again


def test_a_row_that_sees_nothing_cached_is_not_probed() -> None:
    store = Store([5])
    found = run(store, (Span(0, 0, 4, 3),)).found
    assert (found.probes, store.changes) == (0, [])
    assert len(store.wanted) == 1  # nor computed again


def test_after_a_row_that_does_not_repeat_nothing_is_probed() -> None:
    class Noisy(Store):
        def _row(self, sequence: int, row: int) -> Tensor:
            return super()._row(sequence, row) + len(self.wanted)

    store = Noisy([7] * 3)
    found = run(store, *TWO).found
    assert found.unsteady == "row 3 of w/0 does not repeat its bits undisturbed"
    assert (found.probes, store.changes) == (0, [])
