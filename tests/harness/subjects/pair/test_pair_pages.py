"""A decode over pages: shuffled, shared, of any size, and full of NaN where nothing lies."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from engine_calls import differs, over, run, setting
from paged_pair import decode_kept_table
from paged_pair import prefill as prefill_alone
from spied_pair import MEMBERS, Spy, decode, prefill
from spied_pair import run as step

from kvparity.plan.schedule import Layout, Member
from kvparity.subjects.attention_calls import PairDecodeCall
from kvparity.subjects.base import SubjectError
from kvparity.subjects.pair.exact import exact, exact_pair

PATHS = ["decode", "batched", "uniform", "mixed", "chunked(24)", "prefix(17)", "reset"]
OF_PAGES = ["paged(1)", "paged(4)", "paged(64)", "prefix-paged(17)"]
CODES = {"kv_cache": "int8(4)", "prefill": "paged_pair.py:prefill_codes"}


def over_pages(decode: str = "decode", paths: list[str] | None = None, **more: Any) -> Any:
    chosen = {"page": 4} | more | {"decode": f"paged_pair.py:{decode}"}
    return setting(paths or ["decode", "batched"], module="paged_pair.py", **chosen)


@pytest.mark.parametrize(
    "more",
    [{"page": 1}, {"layout": "head-slot"}, CODES | {"page": 16}],
    ids=["of 1", "head-slot", "codes"],
)
def test_a_right_decode_over_pages_holds_on_every_path(more: dict[str, Any]) -> None:
    right = "decode_codes" if "kv_cache" in more else "decode"
    found = run(over_pages(right, PATHS + OF_PAGES, **more))
    assert {path: each.outcome for path, each in found.items()} == dict.fromkeys(
        PATHS + OF_PAGES, "holds"
    )


@pytest.mark.parametrize(
    ("decode", "more", "right"),
    [
        ("decode_in_order", {}, set()),
        ("decode_whole_pages", {}, set()),
        ("decode_first_table", {}, {"decode"}),
        ("decode_first_scale", CODES, set()),
    ],
)
def test_a_fault_of_pages_differs(decode: str, more: dict[str, Any], right: set[str]) -> None:
    found = over_pages(decode, **more)
    assert differs(run(found)) == {"decode", "batched"} - right


def test_pages_lie_anywhere_and_their_ends_hold_nothing() -> None:
    spy = Spy()
    session = spy.subject(page=2).session(MEMBERS, Layout(empties=True))
    step(session, prefill(0, 5), prefill(1, 3))
    step(session, decode(0, 5), decode(1, 3))
    call = spy.given[1]
    k, table = call["k"], call["block_table"]
    assert (k.shape[1:], table.dtype, len(table)) == ((2, 1, 8), torch.int32, 5)
    assert call["kv_lens"].tolist() == [0, 6, 4, 1, 0]
    held = session.cache()
    for row, (sequence, keys) in zip(table[1:3], [(0, 6), (1, 4)], strict=True):
        pages = row[: keys // 2].tolist()
        assert all(other != one + 1 for one, other in pairwise(pages))
        mine = k[row.long()].flatten(0, 1)
        assert torch.equal(mine[:keys], held.read(0, sequence, 0, keys)[0])
        assert bool(mine[keys:].isnan().all())
    assert bool(k[table[[0, 3, 4], 0].long()].isnan().all())


def test_a_table_kept_over_a_reset_differs() -> None:
    one = over_pages(paths=["decode", "reset"], lengths=[30])
    assert differs(run(over(one, prefill=prefill_alone, decode=decode_kept_table()))) == {"reset"}


def test_a_prefix_shares_whole_pages_and_no_other() -> None:
    spy = Spy()
    members = (*MEMBERS[:2], Member("d", 8, 7, like="a", shared=5))
    session = spy.subject(page=2).session(members, Layout())
    step(session, prefill(2, 7))
    session.adopt(0, 2, 5)
    step(session, prefill(0, 7, start=5))
    step(session, decode(0, 7), decode(2, 7))
    own, donors = spy.given[-1]["block_table"].tolist()
    assert own[:2] == donors[:2]
    assert not {*own[2:4]} & {*donors[2:4]}
    with pytest.raises(SubjectError, match="the first 4 lie in pages of another sequence"):
        session.cache().truncate(0, 3)
    session.cache().truncate(0, 4)
    session.reset()
    session.cache().truncate(0, 0)


def test_a_write_to_pages_or_their_table_is_an_error() -> None:
    for name in ("block_table", "k"):
        spy = Spy()
        subject = spy.subject(page=2)

        def spoils(call: PairDecodeCall, name: str = name) -> Any:
            getattr(call, name).fill_(1)
            return torch.zeros_like(call.q)

        session = subject.with_pair(replace(subject.pair, decode=spoils)).session(MEMBERS, Layout())
        step(session, prefill(0, 5))
        with pytest.raises(SubjectError, match=f"wrote to its input {name}"):
            step(session, decode(0, 5))


def test_calls_over_pages_and_over_caches_are_the_same_call() -> None:
    k = torch.arange(2 * 5 * 3.0).view(2, 5, 1, 3)
    call = PairDecodeCall(
        q=k[:, 0], k=k, v=-k, kv_lens=torch.tensor([5, 2], dtype=torch.int32), scale=1.0
    )
    paged = call.in_pages(2)
    assert paged.k.shape == (6, 2, 1, 3)
    assert (paged.sequence(1).plain().k[:, :5] == k[1:]).all()
    back = paged.plain()
    assert (back.block_table, back.k.shape[1]) == (None, 6)
    assert torch.equal(back.v[:, :5], -k)
    assert call.plain() is call


def test_what_a_pair_of_other_kernels_is_called_with_is_in_pages_too() -> None:
    found = over_pages(page=4).subject
    given = found.with_pair(exact_pair(found, exact))
    q, k, v = found.draw("a", torch.arange(6))
    call = PairDecodeCall(
        q=q[-1:], k=k[None], v=v[None], kv_lens=torch.tensor([6], dtype=torch.int32),
        scale=found.scale,
    )  # fmt: skip
    rows = [given.pair.decode(each)[0] for each in (call, call.in_pages(4))]
    assert torch.equal(*rows)
