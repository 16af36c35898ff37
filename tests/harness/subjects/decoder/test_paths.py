"""The decoder's rows have the same bits on every path, and only then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

import pytest
import torch
from few import few
from torch import Tensor

from kvparity.plan.schedule import Layout, Member, Schedule, Span, Step
from kvparity.subjects.attention_calls import DecodeCall, Outputs, PrefillCall
from kvparity.subjects.decoder.presets import preset
from kvparity.subjects.decoder.seeded import seeded
from kvparity.subjects.decoder.session import DecoderSession
from kvparity.subjects.decoder.subject import DecoderSubject
from kvparity_kernels.order import ReductionOrder

CPU = torch.device("cpu")
ORDER = ReductionOrder(split=32, tile=16, block_m=16)
KINDS = {
    "float32": (torch.float32, torch.float32),
    "bfloat16": (torch.bfloat16, torch.bfloat16),
    "float32 over a bfloat16 cache": (torch.float32, torch.bfloat16),
}
# Two sequences: one crosses a split edge at 32 keys while it decodes, one a tile edge at 16.
MEMBERS = (Member("a", 36, 31), Member("b", 19, 14))
IDS = [
    [(41 * n * n + 7 * n + 3) % 256 for n in range(36)],
    [(29 * n + 101) % 256 for n in range(19)],
]

Rows = dict[tuple[int, int], Tensor]


@cache
def subject(kind: str = "float32", layers: int = 2) -> DecoderSubject:
    execution, stored = KINDS[kind]
    config = replace(preset("tiny"), layers=layers, max_positions=64)
    weights = seeded(config, 0, execution, CPU)
    return DecoderSubject(config, weights, kv_cache=stored, order=ORDER, twin=True)


def whole(sequence: int, start: int = 0, stop: int | None = None) -> Span:
    """A prefill span with the rows from the last prompt token on."""
    member = MEMBERS[sequence]
    stop = member.length if stop is None else stop
    return Span(sequence, start, stop, rows_from=min(max(start, member.prompt - 1), stop))


def single(sequence: int, position: int, shift: int = 0) -> Span:
    return Span(sequence, position, position + 1, position, decode=True, position_shift=shift)


def rollout(sequence: int) -> list[Span]:
    member = MEMBERS[sequence]
    later = [single(sequence, position) for position in range(member.prompt, member.length)]
    return [whole(sequence, 0, member.prompt), *later]


def alone(columns: Sequence[Sequence[Span]]) -> Schedule:
    return tuple((span,) for column in columns for span in column)


def together(columns: Sequence[Sequence[Span]], delay: int = 0) -> Schedule:
    """Side by side; column ``i`` starts ``i * delay`` steps late."""
    steps = max(len(column) + i * delay for i, column in enumerate(columns))
    return tuple(
        tuple(c[n - i * delay] for i, c in enumerate(columns) if 0 <= n - i * delay < len(c))
        for n in range(steps)
    )


def chunked(sequence: int, size: int) -> list[Span]:
    length = MEMBERS[sequence].length
    return [whole(sequence, n, min(n + size, length)) for n in range(0, length, size)]


REFERENCE = alone([[whole(0)], [whole(1)]])
BOTH = [rollout(0), rollout(1)]
PATHS: dict[str, tuple[Schedule, Layout]] = {
    "decode": (alone(BOTH), Layout()),
    "chunked(7)": (alone([chunked(0, 7), chunked(1, 7)]), Layout()),
    "batched": (together(BOTH), Layout(slack=5)),
    "mixed": (together([rollout(1), rollout(0)], delay=2), Layout()),
    "one packed step": (((whole(1), whole(0)),), Layout()),
    "paged(8)": (together(BOTH), Layout(page=8)),
    "padded left": (together(BOTH), Layout(batch="left")),
    "padded right": (together(BOTH), Layout(batch="right", slack=1)),
}


def play(session: DecoderSession, schedule: Schedule, ids: list[list[int]] = IDS) -> Rows:
    rows: Rows = {}
    for step in schedule:
        places = [(span.sequence, position) for span in step for position in span.rows]
        blocks = list(session.forward(step, [ids[s.sequence][s.start : s.stop] for s in step]))
        found = torch.cat(blocks) if blocks else torch.empty(0)
        rows |= dict(zip(places, found, strict=True))
    return rows


def of(which: DecoderSubject, schedule: Schedule, layout: Layout = Layout()) -> Rows:  # noqa: B008 - frozen
    return play(which.session(MEMBERS, layout), schedule)


@cache
def reference(kind: str, layers: int = 2) -> Rows:
    return of(subject(kind, layers), REFERENCE)


def differing(left: Rows, right: Rows) -> list[tuple[int, int]]:
    assert left.keys() == right.keys()
    assert all(row.dtype == torch.float32 for row in (*left.values(), *right.values()))
    return [
        place
        for place in left
        if not torch.equal(left[place].view(torch.int32), right[place].view(torch.int32))
    ]


# A cache that is narrower than the execution adds a rounding, wherever keys go: fewer paths do.
CASES = [(kind, path) for kind in ("float32", "bfloat16") for path in PATHS] + [
    ("float32 over a bfloat16 cache", path) for path in ("decode", "chunked(7)", "padded left")
]


@pytest.mark.parametrize(("kind", "path"), few(CASES, len(PATHS)))
def test_every_path_gives_the_bits_of_prefill(kind: str, path: str) -> None:
    found = of(subject(kind), *PATHS[path])
    assert len(found) == 6 + 6
    assert all(row.isfinite().all() for row in found.values())
    assert differing(found, reference(kind)) == []


def test_the_kinds_differ_from_each_other() -> None:
    for left, right in combinations(KINDS, 2):
        assert len(differing(reference(left), reference(right))) == 12


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_the_interpreted_kernels_give_the_bits_of_their_twins(kind: str) -> None:
    twins = subject(kind, layers=1)
    interpreted = with_model(twins, twin=False)
    schedule: Schedule = ((Span(1, 0, 5, 3),), (single(1, 5),))
    sessions = [which.session(MEMBERS, Layout()) for which in (twins, interpreted)]
    mine, theirs = (play(session, schedule) for session in sessions)
    assert len(mine) == 3
    assert differing(mine, theirs) == []
    counts = [session.observed()["linear.linear"] for session in sessions]
    assert counts[0] == 0
    assert counts[1] > 0


def with_model(which: DecoderSubject, **changes: Any) -> DecoderSubject:
    other = which.with_attention(which.attention)
    other.model = replace(which.model, **changes)
    return other


def test_observed_counts_what_was_launched() -> None:
    which = subject(layers=1)
    session = which.session(MEMBERS, Layout())
    assert not session.observed()
    play(session, ((Span(0, 0, 3, 3), Span(1, 0, 2, 2)),))
    assert session.observed()["attention.prefill"] == 1
    assert session.observed()["attention.decode"] == 0
    play(session, ((single(0, 3), Span(1, 2, 4, 4)),))
    assert session.observed()["attention.prefill"] == 2
    assert session.observed()["attention.decode"] == 1


# Poison


Call = tuple[Tensor, Tensor]


def spying(which: DecoderSubject) -> tuple[DecoderSubject, list[Call]]:
    """The subject with its prefill calls noted: (queries, output)."""
    calls: list[Call] = []

    def prefill(call: PrefillCall) -> Outputs:
        out, lse = which.attention.prefill(call)
        calls.append((call.q.clone(), out.clone()))
        return out, lse

    return which.with_attention(replace(which.attention, prefill=prefill)), calls


@pytest.mark.parametrize("side", ["left", "right"])
def test_pad_rows_are_computed_and_poisoned_and_reach_nobody(side: Any) -> None:
    which, calls = spying(subject())
    step: Step = (whole(0, 0, 9), whole(1, 0, 4))
    session = which.session(MEMBERS, Layout(batch=side))
    play(session, (step,))
    pads = slice(9, 14) if side == "left" else slice(13, 18)
    (first_q, first_out), (second_q, second_out) = calls
    assert first_q.shape[0] == 18
    assert first_q.isfinite().all()  # pads are embedded and projected like any token
    assert first_out[pads].isnan().all()
    assert second_q[pads].isnan().all()  # and run on through the layer, as NaN
    real = [n for n in range(18) if not pads.start <= n < pads.stop]
    assert second_q[real].isfinite().all()
    assert second_out[real].isfinite().all()
    packed, expected = spying(subject())
    play(packed.session(MEMBERS, Layout()), (step,))
    assert torch.equal(second_out[real].view(torch.int32), expected[1][1].view(torch.int32))


LAYOUTS = [
    Layout(),
    Layout(slack=0),
    Layout(page=8),
    Layout(page=1),
    Layout(batch="left"),
    Layout(batch="right"),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_only_written_slots_of_the_cache_are_no_poison(layout: Layout) -> None:
    session = subject(layers=1).session(MEMBERS, layout)
    stored = session.cache()
    assert stored is not None
    assert stored.k[0].codes.isnan().all()
    play(session, ((whole(0, 0, 20), whole(1, 0, 7)), (single(0, 20), single(1, 7))))
    slots = stored.slots(0, 0, 21) + stored.slots(1, 0, 8)
    assert len(set(slots)) == 29
    for tensor in (stored.k[0].codes, stored.v[0].codes):
        full = tensor.isfinite().all(-1).all(-1)
        empty = tensor.isnan().all(-1).all(-1)
        assert full.nonzero().flatten().tolist() == sorted(slots)
        assert int(full.sum() + empty.sum()) == len(tensor)
    if layout.slack or layout.batch != "packed":
        assert len(stored.k[0].codes) > sum(member.length for member in MEMBERS)


def test_reading_a_poisoned_slot_shows() -> None:
    which = subject(layers=1)

    def too_far(call: DecodeCall) -> Outputs:
        longer = replace(call.kv, kv_lens=call.kv.kv_lens + 1)
        return which.attention.decode(replace(call, kv=longer, max_kv=call.max_kv + 1))

    planted = which.with_attention(replace(which.attention, decode=too_far))
    rows = play(planted.session(MEMBERS, Layout()), ((Span(1, 0, 5, 5),), (single(1, 5),)))
    assert rows[1, 5].isnan().all()


# Defects that must change bits


def decoded(which: DecoderSubject, shift: int = 0, stale: int | None = None) -> Rows:
    """Prefill 20 tokens of sequence 0 and decode one."""
    session = which.session(MEMBERS, Layout())
    play(session, ((whole(0, 0, 20),),))
    if stale is not None:
        stored = session.cache()
        assert stored is not None
        for layer in range(stored.layers()):
            stored.write(layer, 0, stale, *stored.read(layer, 0, 0, 1))
    return play(session, ((single(0, 20, shift),),))


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_controls_are_caught(kind: str) -> None:
    which = subject(kind)
    base = decoded(which)
    assert differing(decoded(which), base) == []
    assert differing(decoded(which, shift=1), base) == [(0, 20)]
    for stale in (1, 10, 19):
        assert differing(decoded(which, stale=stale), base) == [(0, 20)], stale


def test_another_reduction_order_is_caught() -> None:
    which = subject()
    other = with_model(which, order=replace(ORDER, split=16))
    assert differing(decoded(other), decoded(which)) == [(0, 20)]


# Accuracy


# Around a hundred roundings to 24 or 8 bits between the embedding and logits of size 5.
@pytest.mark.parametrize(("kind", "limit"), [("float32", 2e-5), ("bfloat16", 0.25)])
def test_execution_is_close_to_the_oracle(kind: str, limit: float) -> None:
    which = subject(kind)
    rows = range(MEMBERS[0].prompt - 1, MEMBERS[0].length)
    exact = which.oracle(MEMBERS[0], IDS[0], rows)
    assert exact.dtype == torch.float64
    found = torch.stack([reference(kind)[0, position] for position in rows])
    assert (found - exact).abs().max() < limit
    wrong = [IDS[0][0] ^ 1, *IDS[0][1:]]
    assert (found - which.oracle(MEMBERS[0], wrong, rows)).abs().max() > limit
