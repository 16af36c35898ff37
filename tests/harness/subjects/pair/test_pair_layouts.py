"""How a call of a pair is laid out: empty sequences, fused views, slots that lie far apart."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kvparity.plan.schedule import Span
from kvparity.subjects.attention_calls import StoredKV
from kvparity.subjects.pair.batch import fault_of, sizes, with_empties
from kvparity.subjects.pair.inputs import Inputs, strided
from kvparity.subjects.pair.sparse import Spread, spread_for


def spans(*rows: tuple[int, int | None], start: int = 0) -> list[Span]:
    """(tokens, the token that is compared first) of each sequence."""
    return [
        Span(i, start, start + n, start + n if wanted is None else start + wanted)
        for i, (n, wanted) in enumerate(rows)
    ]


def drawn(given: list[Span]) -> str:
    """A letter for each sequence, a point for each empty one, in runs."""
    found = "".join("." if each is None else "abc"[each.sequence] for each in with_empties(given))
    assert len(found) <= sum(span.stop - span.start for span in given)
    return found


@pytest.mark.parametrize("start", [0, 7])
@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        # Never more sequences than rows: the first place is filled first, the last one second.
        ([(1, 0)], "a"),
        ([(2, 1)], ".a"),
        ([(3, 2)], ".a."),
        ([(4, 3)], ".a.."),
        ([(1, 0), (1, 0)], "ab"),
        ([(2, 1), (1, 0)], ".ab"),
        ([(2, 1), (2, 1)], ".ab."),
        ([(3, 2), (2, 1)], ".a.b."),
        # Behind the first sequence so many that their numbers reach the first compared row.
        ([(30, 0)], ".a.."),
        ([(30, 1)], ".a.."),
        ([(30, 2)], ".a.."),
        ([(30, 3)], ".a..."),
        ([(30, 9)], ".a" + 8 * "." + "."),
        ([(30, None)], ".a.."),
        ([(3, None), (30, 4)], ".a" + 6 * "." + "b."),
        ([(3, None), (30, None), (2, 1)], ".a" + 16 * "." + "bc."),
        # At most sixteen, and no more than there is room for.
        ([(30, 17)], ".a" + 16 * "." + "."),
        ([(30, 29)], ".a" + 16 * "." + "."),
        ([(10, 9)], ".a" + 7 * "." + "."),
    ],
)
def test_where_empty_sequences_stand(
    rows: list[tuple[int, int | None]], wanted: str, start: int
) -> None:
    assert drawn(spans(*rows, start=start)) == wanted


def test_sizes_of_sequences_with_empty_ones_between() -> None:
    one, two = Span(0, 0, 4, 4), Span(1, 3, 5, 5)
    assert sizes([None, one, None, two], lambda span: span.stop + 1) == ([0, 4, 0, 2], [0, 5, 0, 6])


INF, NAN = torch.inf, torch.nan
OR_SINK = " for a row with kv_lens 0; expected -inf, or the logit of its sink"


@pytest.mark.parametrize(
    ("out", "lse", "sinks", "says"),
    [
        ([0.0, -0.0], [-INF], False, None),
        ([0.0, 0.0], [INF], False, None),
        ([0.0, 0.0], [], False, None),
        ([0.0, 0.0], [1.5], True, None),
        ([0.0, 2.5], [-INF], False, "f gave 2.5 in a row with kv_lens 0; expected 0"),
        ([0.0, NAN], [-INF], False, "f gave nan in a row with kv_lens 0; expected 0"),
        ([0.0, 2.5], [1.5], True, "f gave 2.5 in a row with kv_lens 0; expected 0"),
        ([0.0, 0.0], [1.5], False, "f gave an LSE of 1.5 for a row with kv_lens 0; expected -inf"),
        ([0.0, 0.0], [NAN], False, "f gave an LSE of nan for a row with kv_lens 0; expected -inf"),
        ([0.0, 0.0], [NAN], True, f"f gave an LSE of nan{OR_SINK}"),
        ([0.0, 0.0], [2.5], True, f"f gave an LSE of 2.5{OR_SINK}"),
        ([0.0, 0.0], [-INF], True, None),
        ([0.0, 0.0], [], True, None),
    ],
)
def test_a_row_without_keys(
    out: list[float], lse: list[float], sinks: bool, says: str | None
) -> None:
    good = torch.tensor([[0.0, 0.0, *(-INF for _ in lse)]])
    rows = torch.tensor([[*out, *lse]])
    for both in (torch.cat([rows, good]), torch.cat([good, rows])):
        assert fault_of("f", both, 2, sinks=torch.tensor([1.5]) if sinks else None) == says


def inputs(queries: int, keys: int, *, coded: bool, wide: bool) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(queries, 4, 8, generator=generator)
    k, v = (torch.randn(keys, 2, 4 if wide else 8, generator=generator) for _ in "kv")
    if coded:
        k, v = (x.to(torch.int8) for x in (k * 9, v * 9))
    return Inputs(q, StoredKV(k, v, torch.ones(2)), True, twin=StoredKV(k, v))


@pytest.mark.parametrize(
    ("keys", "rows", "coded", "wide", "shared"),
    [
        # Which of q, k and v are views of one tensor: by number of the tensor, 0 is none of ours.
        (True, 5, False, False, (1, 1, 1)),
        (True, 5, True, False, (1, 2, 2)),
        (True, 5, False, True, (1, 2, 2)),
        (True, 6, False, False, (1, 0, 0)),
        (False, 5, False, False, (1, 0, 0)),
    ],
)
def test_what_is_fused_into_one_tensor(
    keys: bool, rows: int, coded: bool, wide: bool, shared: tuple[int, ...]
) -> None:
    plain = inputs(5, rows, coded=coded, wide=wide)
    found = strided(plain, spare=3, keys=keys)
    places = [each.untyped_storage().data_ptr() for each in found.memory]
    views = (found.q, found.given.k, found.given.v)
    numbers = [x.untyped_storage().data_ptr() for x in views]
    assert tuple(places.index(n) + 1 if n in places else 0 for n in numbers) == shared
    assert len(places) == max(shared)
    assert (found.empties, found.twin, found.given.k_scale) == (
        plain.empties, plain.twin, plain.given.k_scale,
    )  # fmt: skip
    for view, x in zip(views, (plain.q, plain.given.k, plain.given.v), strict=True):
        assert torch.equal(view, x)
        assert (view is x) == (view.untyped_storage().data_ptr() not in places)
    # Heads lie side by side, rows as far apart as all are wide; beside them all bytes are ones.
    for place, memory in enumerate(found.memory, 1):
        mine = [x for x, number in zip(views, shared, strict=True) if number == place]
        room = 3 if shared.count(1) == 1 and place == 1 else 0
        width = (sum(x.shape[1] for x in mine) + room) * mine[0].shape[2]
        assert {x.stride() for x in mine} == {(width, mine[0].shape[2], 1)}
        assert memory.numel() == (len(mine[0]) + 4) * width
        assert mine[0].storage_offset() == 2 * width
        for x in mine:
            x.zero_()
        left = memory.flatten()[memory.flatten().view(bits(memory)) != 0].view(torch.uint8)
        assert bool((left == 255).all())
        assert len(left) == (memory.numel() - sum(x.numel() for x in mine)) * memory.element_size()


def bits(x: Tensor) -> torch.dtype:
    return {1: torch.uint8, 4: torch.int32}[x.element_size()]


@pytest.mark.parametrize(
    ("dtype", "heads_first", "step", "slot", "head"),
    [
        # A slot is 2 heads of 5 elements; with heads first a cell is 5 elements. Whole cells, and
        # never fewer than three: one with a band at both ends.
        (torch.float32, False, 1, 30, 5),
        (torch.float32, False, 31, 40, 5),
        (torch.float32, False, 40, 40, 5),
        (torch.int8, False, 41, 50, 5),
        (torch.bfloat16, True, 1, 15, 45),
        (torch.bfloat16, True, 16, 20, 60),
        (torch.int8, True, 20, 20, 60),
    ],
)
def test_slots_that_lie_apart(
    dtype: torch.dtype, heads_first: bool, step: int, slot: int, head: int
) -> None:
    whole = torch.arange(1, 31).view(3, 2, 5).to(dtype)
    codes, touched = Spread(step, heads_first).lay(whole)
    assert (codes.dtype, codes.shape) == (dtype, whole.shape)
    assert codes.stride() == (slot, head, 1)
    assert torch.equal(codes, whole)
    raw = whole.view(torch.uint8)
    cells = raw if heads_first else raw.reshape(3, 1, -1)
    band = torch.full_like(cells, 255)
    assert torch.equal(touched, torch.cat([band, cells, band], 2))
    # Nothing else was written, and a write beside a code is seen in what is touched.
    memory = torch.empty(0, dtype=torch.uint8).set_(codes.untyped_storage())
    assert int(memory.count_nonzero()) == int(touched.count_nonzero())
    codes.as_strided((1,), (1,), codes.storage_offset() - 1).view(-1)[:] = 0
    assert not bool(touched[0, 0].all())


@pytest.mark.parametrize("longest", [2, 3, 40, 4099])
@pytest.mark.parametrize("heads_first", [True, False])
def test_the_last_key_of_the_longest_prompt_lies_just_beyond(
    longest: int, heads_first: bool
) -> None:
    found = spread_for(longest, heads_first=heads_first)
    assert found.heads_first == heads_first
    assert (longest - 1) * found.step >= 2**31 > (longest - 1) * (found.step - 1)
    assert spread_for(1, heads_first=heads_first) == spread_for(2, heads_first=heads_first)
