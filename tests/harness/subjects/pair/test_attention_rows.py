"""The data of an attention pair, the rows it gives, and what its cache holds."""

from __future__ import annotations

import pytest
import torch
from pair_settings import prefill_of, rows
from small_pair import subject

from kvparity.plan.schedule import Layout, Member, Plan, Span
from kvparity.subjects.base import UnsupportedError


def test_data_belongs_to_its_sequence_and_position() -> None:
    found = subject(queries="normal")
    q, k, v = found.draw("a", torch.arange(9))
    assert [list(x.shape) for x in (q, k, v)] == [[9, 4, 8], [9, 2, 8], [9, 2, 8]]
    for some in (torch.tensor([4]), torch.tensor([8, 0, 4])):
        for whole, part in zip((q, k, v), found.draw("a", some), strict=True):
            assert torch.equal(part.view(torch.int32), whole[some].view(torch.int32))
    others = [found.draw("b", torch.arange(9))[0], found.draw("a", torch.arange(9) + 1)[0]]
    for other in (*others, k.repeat(1, 2, 1)):
        assert not bool((other == q).any())
    assert abs(float(torch.cat([q, k, v], 1).std()) - 1) < 0.1


def test_rows_do_not_depend_on_place_batch_or_length() -> None:
    found = subject()
    alone = rows(found, prefill_of("a"))
    second = rows(found, prefill_of("b", "a"))
    longer = rows(found, prefill_of("a", length=9))
    picked = [i for i, (sequence, _) in enumerate(second.index) if sequence == 1]
    for other in (second.values[picked], longer.values[: len(alone.values)]):
        assert torch.equal(other.view(torch.int32), alone.values.view(torch.int32))
    assert not bool((second.values[: len(picked)] == alone.values).all(-1).any())


def test_values_are_the_rows_with_their_lse() -> None:
    with_lse = rows(subject(queries="normal"), prefill_of("a"))
    alone = subject("decode_alone", "prefill_alone", queries="normal")
    without = rows(alone, prefill_of("a"))
    assert list(with_lse.values.shape) == [4, 4 * 8 + 4]
    assert torch.equal(with_lse.values[:, :32], without.values)
    oracle = alone.oracle(Member("a", 6, 2), [0] * 6, range(1, 5))
    assert oracle.dtype == torch.float64
    # Sums of six float32 products of unit normals.
    assert float((with_lse.values.double() - oracle).abs().max()) < 1e-5


def test_unused_slots_hold_nan() -> None:
    found = subject(kv_cache="bfloat16")
    session = found.session([Member("a", 6, 2), Member("b", 3, 1)], Layout(slack=2))
    list(session.forward((Span(1, 0, 2, 1),), [[0, 0]]))
    k, v = session.cache().read(0, 1, 0, 8)
    assert k.dtype == v.dtype == torch.bfloat16
    for stored in (k, v):
        assert not bool(torch.isnan(stored[:2]).any())
        assert bool(torch.isnan(stored[2:]).all())
    assert bool(torch.isnan(session.cache().read(0, 0, 0, 8)[0]).all())
    assert session.observed() == {"attention.prefill": 1}


def test_both_kinds_of_span_are_called_once_a_step_and_come_in_span_order() -> None:
    found = subject(queries="normal")
    members = [Member(name, 6, 2) for name in "abc"]
    session = found.session(members, Layout())
    list(session.forward((Span(0, 0, 3, 3), Span(2, 0, 4, 4)), [[0] * 3, [0] * 4]))
    step = (Span(2, 4, 5, 4, decode=True), Span(1, 0, 3, 1), Span(0, 3, 4, 3, decode=True))
    blocks = list(session.forward(step, [[0], [0] * 3, [0]]))
    assert [len(block) for block in blocks] == [1, 2, 1]
    assert session.observed() == {"attention.prefill": 2, "attention.decode": 1}
    for block, name, positions in zip(blocks, "cba", ([4], [1, 2], [3]), strict=True):
        wanted = found.oracle(Member(name, 6, 2), [0] * 6, range(positions[0], positions[-1] + 1))
        assert float((block.double() - wanted).abs().max()) < 1e-5


def test_what_a_pair_cannot_do_is_said() -> None:
    found = subject()
    for layout, word in ((Layout(page=4), "pages"), (Layout(batch="left"), "padded")):
        with pytest.raises(UnsupportedError, match=word):
            rows(found, Plan((Member("a", 3, 1),), (), layout))
    with pytest.raises(UnsupportedError, match="generates no tokens"):
        rows(found, Plan((Member("a", 3, 1),), (), Layout(), generate=True))
