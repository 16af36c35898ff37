"""A pair that is wrong in one place of one call, and what lies beside each thing it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import naive_pair
import pytest
import torch
from engine_calls import over, run, setting
from torch import Tensor

from kvparity.plan.schedule import Layout, Member, Span
from kvparity.subjects.base import SubjectError
from kvparity.subjects.decoder.poisoned_store import GUARD
from kvparity.subjects.pair.inputs import BAND
from kvparity.subjects.pair.model import Pair
from kvparity.subjects.pair.subject import AttentionSubject
from kvparity_kernels.store import StoreFormat

HEADS, KV_HEADS, DIM, PROMPT = 4, 2, 8, 5


@dataclass(frozen=True)
class Around:
    """Of the memory that something given is a view of: all but what may be read; elements a row."""

    before: Tensor
    between: Tensor
    behind: Tensor
    row: int


def around(x: Tensor, keys: int) -> Around:
    """``keys``: so many slots may be read of a cache, or of packed keys."""
    whole = torch.empty(0, dtype=x.dtype).set_(x.untyped_storage()).clone()
    place = torch.arange(len(whole)).as_strided(x.shape, x.stride(), x.storage_offset())
    place = place[:, :keys] if x.dim() == 4 else place[:keys]
    used = torch.zeros(len(whole), dtype=torch.bool)
    used[place.flatten()] = True
    first, last = int(place.min()), int(place.max())
    parts = whole[:first], whole[first:last][~used[first:last]], whole[last + 1 :]
    return Around(*parts, x.stride(1 if x.dim() == 4 else 0))


Look = Callable[[Tensor, int], Any]


def looked(look: Look, store: str = "float32", layout: str = "slot-head", **more: Any) -> Any:
    """What a look at each thing given shows, call by call: a prompt, and two steps of decode.

    Of one sequence alone. The second call of a kind is given no fused views.
    """
    seen: list[dict[str, Any]] = []

    def kernel(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
        keys = len(k) if more.get("kv_lens") is None else int(more["kv_lens"])
        scales = {name: more[name] for name in ("k_scale", "v_scale") if name in more}
        shown = {name: look(x, keys) for name, x in {"k": k, "v": v, **scales}.items()}
        seen.append(shown | {"q": look(q, len(q))})
        return torch.zeros_like(q), torch.zeros(q.shape[:2])

    session = subject(kernel, store, layout).session([Member("m", 7, PROMPT)], Layout(**more))
    list(session.forward((Span(0, 0, PROMPT, PROMPT - 1),), [[0] * PROMPT]))
    for at in (PROMPT, PROMPT + 1):
        list(session.forward((Span(0, at, at + 1, at, decode=True),), [[0]]))
    return seen


def subject(kernel: Any, store: str, layout: str = "slot-head") -> AttentionSubject:
    found, format = setting(["decode"]).subject, StoreFormat.parse(store)
    assert isinstance(found, AttentionSubject)
    return replace(
        found.with_pair(Pair.of(kernel, kernel, "prefill", "decode")),
        format=format if format.dynamic or format.static else None,
        kv_cache=format.storage_dtype,
        layout=layout,
    )


@pytest.mark.parametrize("layout", ["slot-head", "head-slot"])
@pytest.mark.parametrize("store", ["float32", "bfloat16", "fp8_e4m3(head)", "int8(8)"])
@pytest.mark.parametrize("part", ["k", "v"])
def test_beside_the_keys_of_a_cache_all_is_nan(part: str, store: str, layout: str) -> None:
    name = f"{part}_scale" if "int8" in store else part
    for call in looked(around, store, layout)[1:]:
        found = call[name]
        assert len(found.before) >= GUARD * found.row
        assert len(found.behind) >= GUARD * found.row
        for memory in (found.before, found.between, found.behind):
            assert memory.float().isnan().all()


@pytest.mark.parametrize("layout", ["slot-head", "head-slot"])
def test_what_comes_first_in_memory_is_what_was_asked(layout: str) -> None:
    for call in looked(lambda x, keys: x.stride(), "bfloat16", layout)[1:]:
        _, slot, head, _ = call["k"]
        assert (head > slot) == (layout == "head-slot")
        assert call["v"] == call["k"]


@pytest.mark.parametrize("end", [-1, 7 + Layout().slack], ids=["before", "behind"])
@pytest.mark.parametrize("part", ["k", "v"])
def test_beside_far_keys_all_is_nan(part: str, end: int) -> None:
    def look(x: Tensor, keys: int) -> Tensor | None:
        if x.dim() < 4:
            return None
        place = x.storage_offset() + end * x.stride(1)
        return x.as_strided(x.shape[2:], x.stride()[2:], place).clone()

    for call in looked(look, far=True)[1:]:
        assert call[part].isnan().all()


@pytest.mark.parametrize("number", [0, 1], ids=["prefill", "decode"])
def test_beside_a_fused_view_all_is_nan(number: int) -> None:
    found = looked(around)[number]["q"]
    heads = 2 * KV_HEADS * DIM
    assert found.row == HEADS * DIM + heads
    assert len(found.before) == BAND * found.row
    assert len(found.behind) == BAND * found.row + heads
    for band in (found.before, found.behind[heads:]):
        assert band.isnan().all()
    if number:  # of decode there is room for k and v, and nothing in it
        assert found.behind.isnan().all()


# One wrong place in the rows of nobody, or one write


def decode(change: Callable[[Tensor, Tensor, Tensor], None]) -> Callable[..., Any]:
    def kernel(q: Tensor, k: Tensor, v: Tensor, *, kv_lens: Tensor, **more: Any) -> Any:
        out, lse = naive_pair.decode(q, k, v, kv_lens=kv_lens, **more)
        empty = (kv_lens == 0).nonzero().flatten()
        if len(empty):
            change(out, lse, empty)
        return out, lse

    return kernel


def last_row(out: Tensor, lse: Tensor, empty: Tensor) -> None:
    out[empty[-1], 0, 0] = 1.0


def first_row(out: Tensor, lse: Tensor, empty: Tensor) -> None:
    out[empty[0], 0, 0] = 1.0


def last_number(out: Tensor, lse: Tensor, empty: Tensor) -> None:
    out[empty[0], -1, -1] = torch.nan


def lse_of_one_head(out: Tensor, lse: Tensor, empty: Tensor) -> None:
    lse[empty[0], -1] = 0.0


EMPTY = [first_row, last_row, last_number, lse_of_one_head]


@pytest.mark.parametrize("change", EMPTY, ids=lambda each: each.__name__)
def test_a_row_without_a_key_is_wrong_in_one_place(
    change: Callable[[Tensor, Tensor, Tensor], None],
) -> None:
    found = run(over(setting(["batched"]), decode=decode(change)))["batched"]
    assert found.outcome == "differs"
    assert "row with kv_lens 0" in found.reason


def test_rows_without_a_key_that_are_right_hold() -> None:
    kept = decode(lambda out, lse, empty: None)
    assert run(over(setting(["batched"]), decode=kept))["batched"].outcome == "holds"


@pytest.mark.parametrize("name", ["q", "k", "v", "k_scale", "v_scale", "kv_lens", "sinks", "bias"])
@pytest.mark.parametrize("place", ["first", "last"])
def test_one_write_to_an_input_is_an_error(name: str, place: str) -> None:
    def kernel(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Any:
        out = torch.zeros_like(q)
        if "kv_lens" in more:
            x = {"q": q, "k": k, "v": v, **more}[name]
            at = tuple(0 if place == "first" else n - 1 for n in x.shape)
            x[at] = 3
        return out

    found = replace(subject(kernel, "int8(8)"), sinks=True, distances=3)
    session = found.session([Member("m", 4, 3)], Layout())
    list(session.forward((Span(0, 0, 3, 2),), [[0] * 3]))
    with pytest.raises(SubjectError, match=f"decode wrote to its input {name}$"):
        list(session.forward((Span(0, 3, 4, 3, decode=True),), [[0]]))
