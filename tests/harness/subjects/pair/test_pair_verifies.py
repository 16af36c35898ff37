"""Several rows of a sequence in one call, as speculative decoding verifies drafts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from engine_calls import caught, differs, run, setting
from spied_pair import MEMBERS, Spy, decode, prefill
from spied_pair import run as step

from kvparity.plan.schedule import Layout, Span
from kvparity.subjects.attention_calls import PairDecodeCall
from kvparity.subjects.pair.exact import exact, exact_pair
from kvparity_contracts.controls.many_rows import MANY_ROWS

PATHS = ["decode", "batched", "chunked(24)", "verify(1)", "verify(2)"]
ONE = {"prefill": "paged_pair.py:prefill_window", "decode": "paged_pair.py:decode_window"}
MANY = ONE | {"decode": "paged_pair.py:decode_rows", "rows": "many"}
NAMES = [each.name for each in MANY_ROWS]


def pair(**more: Any) -> Any:
    return setting(PATHS, NAMES, module="paged_pair.py", **{"window": 6, "lengths": [9, 30]} | more)


@pytest.mark.parametrize(
    "more",
    [ONE, MANY, MANY | {"page": 2}, MANY | {"empty": "never"}],
    ids=["by prefill", "by decode", "over pages", "without padding"],
)
def test_right_pairs_hold_and_the_controls_are_caught(more: dict[str, Any]) -> None:
    found = pair(**more)
    assert {path: each.outcome for path, each in run(found).items()} == dict.fromkeys(
        PATHS, "holds"
    )
    assert caught(found) == dict.fromkeys(NAMES, True)


@pytest.mark.parametrize(
    "more",
    [
        ONE | {"prefill": "paged_pair.py:prefill_step_window"},
        MANY | {"decode": "paged_pair.py:decode_step_window"},
        MANY | {"decode": "paged_pair.py:decode_unmasked", "page": 4},
    ],
    ids=["window by prefill", "window by decode", "no mask"],
)
def test_a_fault_of_several_rows_differs_there_alone(more: dict[str, Any]) -> None:
    assert differs(run(pair(**more))) == {"verify(1)", "verify(2)"}


@pytest.mark.parametrize("page", [0, 2])
def test_decode_is_given_all_rows_of_a_step(page: int) -> None:
    spy = Spy()
    session = spy.subject(page=page, rows=True).session(MEMBERS, Layout(empties=True))
    step(session, prefill(0, 4), prefill(1, 5))
    step(session, Span(0, 4, 7, 4, verify=True), Span(1, 5, 7, 5, rows_to=6, verify=True,
                                                      rejected=1))  # fmt: skip
    step(session, decode(0, 7), prefill(2, 3))
    chunk, call, _, last = (spy.given[i] for i in (0, 1, 2, 3))
    assert (chunk["kind"], call["kind"], last["kind"]) == ("p", "d", "d")
    # One without a key first and last, before that one whose keys are left from another batch, and
    # behind the first one that has no row but keys left.
    assert call["cu_seqlens_q"].tolist() == [0, 1, 4, 4, 6, 7, 8]
    assert call["kv_lens"].tolist() == [0, 7, 1, 7, 1, 0]
    assert len(call["q"]) == 8
    assert last["cu_seqlens_q"].tolist() == [0, 1, 2, 2, 3, 4]
    assert session.observed() == {"attention.prefill": 2, "attention.decode": 2}


def test_rejected_drafts_are_other_tokens_and_are_overwritten() -> None:
    spy = Spy()
    session = spy.subject(rows=True).session(MEMBERS, Layout())
    step(session, prefill(0, 4))
    cache = session.cache()
    drafts = Span(0, 4, 7, 4, rows_to=5, verify=True, rejected=2)
    list(session.forward((drafts,), [[0, 1, 1]]))
    wrong = cache.read(0, 0, 4, 7)[0]
    list(session.forward((Span(0, 5, 7, 5, verify=True),), [[0, 0]]))
    right = cache.read(0, 0, 4, 7)[0]
    assert [torch.equal(a, b) for a, b in zip(wrong, right, strict=True)] == [True, False, False]


def test_a_call_of_many_rows_is_one_of_single_rows() -> None:
    found = pair(**MANY).subject
    q, k, v = found.draw("a", torch.arange(8))
    call = PairDecodeCall(
        q=torch.cat([q[5:8], q[:0], q[2:4]]), k=k.expand(3, *k.shape), v=v.expand(3, *v.shape),
        kv_lens=torch.tensor([8, 1, 4], dtype=torch.int32), scale=found.scale, window=6,
        cu_seqlens_q=torch.tensor([0, 3, 3, 5], dtype=torch.int32),
    )  # fmt: skip
    assert (call.queries, call.rows_behind().tolist()) == ((3, 0, 2), [2, 1, 0, 1, 0])
    plain = call.plain()
    assert (plain.cu_seqlens_q, plain.kv_lens.tolist()) == (None, [6, 7, 8, 3, 4])
    like = plain.like(call.in_pages(3))
    assert (like.queries, like.k.shape[1]) == ((1,) * 5, 3)
    assert len(call.sequence(2).q) == 2
    exactly = exact_pair(found, exact).decode
    rows = [exactly(each)[0] for each in (call, call.in_pages(4), plain, like)]
    assert all(torch.equal(rows[0], other) for other in rows[1:])
    want = exact(found, q, k, v)[[5, 6, 7, 2, 3], : rows[0][0].numel()].to(q.dtype)
    assert torch.equal(rows[0].flatten(1), want)
