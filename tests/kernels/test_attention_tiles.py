"""How attention is cut where nothing is reduced: in the interpreter no bit depends on it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import attention_cases as cases
import pytest
import torch
from attention_cases import Case, Result, chunk, last, reference, unequal, whole, wrong

from kvparity_kernels import attention as own
from kvparity_kernels.attention import api
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.tiles import Tiles, using

Mutate = Callable[[dict[str, list[tuple[str, str]]]], Any]
WIDE = ReductionOrder(split=64, tile=16, block_m=16)  # four tiles in a split
SKIP = Tiles(skip_hidden=True)
CHUNKS = [(0, 7), (7, 33), (33, 34), (34, 75)]
PLACES = [0, 15, 16, 40, 63, 64, 74]
FORMS = {
    "plain": Case(order=WIDE),
    "bfloat16, paged, sinks": Case(order=WIDE, dtype=torch.bfloat16, layout="paged 8", sinks=True),
    "a window in a tile": Case(order=WIDE, window=5),
    "a window over tiles": Case(order=WIDE, window=33, dtype=torch.float16),
    "first keys, a cap": Case(order=WIDE, first=True, softcap=5.0),
    "codes": Case(order=WIDE, store="int8(8)", window=20),
}
forms = pytest.mark.parametrize("form", FORMS)


@pytest.mark.parametrize(
    "tiles",
    [
        Tiles(prefill_block_m=64, decode_block_m=32),
        Tiles(prefill_block_m=16, prefill_warps=8, decode_block_m=64, decode_warps=1),
    ],
    ids=str,
)
def test_rows_and_warps_of_a_program_change_no_bit(tiles: Tiles) -> None:
    case = Case(heads=6, kv_heads=1, order=ReductionOrder(split=32, tile=16, block_m=32))
    reference(case)
    from kvparity_kernels import launch

    with using(tiles), launch.record() as log:
        assert wrong(case, [(3, 40), (40, 75)], [0, 31, 74]) == (0, 0)
    for side, name in (("prefill", "prefill"), ("decode", "decode_split")):
        ran = log.kernels[f"attention.{name}"]
        assert ran["constexprs"]["BM"] == getattr(tiles, f"{side}_block_m")
        assert ran["num_warps"] == (getattr(tiles, f"{side}_warps") or case.order.num_warps)


@forms
def test_tiles_that_no_row_sees_add_nothing(form: str) -> None:
    case = FORMS[form]
    reference(case)
    with using(SKIP):
        assert wrong(case, CHUNKS, PLACES) == (0, 0)


def test_in_a_ring_too() -> None:
    case = Case(order=WIDE, window=20)
    reference(case)
    with using(SKIP):
        assert wrong(case, [(30, 37), (70, 75)], PLACES, rings=(26, 20)) == (0, 0)


@pytest.mark.parametrize(
    ("form", "old", "new"),
    [
        ("plain", "highest + 1 - first", "highest + 1 - TILE - first"),
        ("a window over tiles", "// TILE\n", "// TILE + 1\n"),
    ],
    ids=["a tile too many at the end", "a tile too many at the start"],
)
def test_one_tile_too_greedy_is_seen(mutate: Mutate, form: str, old: str, new: str) -> None:
    case = FORMS[form]
    reference(case)
    greedy = mutate({"seen/kernels.py": [(old, new)]})
    assert wrong(case, [(34, 75)], [74], greedy) == (0, 0)  # not asked for
    with using(SKIP):
        chunks, alone = wrong(case, [(34, 75)], [74], greedy)
    assert chunks > 0
    assert alone > 0


def rows_of(case: Case, kv: Any, start: int, stop: int, attn: Any = own) -> Result:
    """Rows start .. stop-1 over a cache that holds more keys than they see."""
    result: Result = attn.attend_prefill(
        case.rows[0][start:],
        kv,
        q_starts=torch.tensor([0], dtype=torch.int32),
        q_lens=torch.tensor([case.n - start], dtype=torch.int32),
        max_q=case.n - start,
        scale=case.scale,
        order=case.order,
    )
    return result[0][: stop - start], result[1][: stop - start]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_number_in_a_tile_that_is_left_out_reaches_nobody(bad: float) -> None:
    # Rows 0 .. 15 see tile 0. In the base a value of tile 1 that is no number taints them, for
    # it is multiplied by 0; left out, it does not. So with such values the two are not the same.
    case = FORMS["plain"]
    clean = whole(case)
    kv = cases.lay(case, [75], [0])
    assert kv.starts is not None
    kv.v[kv.starts[0] + 20] = bad
    first = tuple(x[:16] for x in clean)
    assert rows_of(case, kv, 0, 16)[0].isnan().any()
    with using(SKIP):
        assert unequal(rows_of(case, kv, 0, 16), first) == 0  # type: ignore[arg-type] # two
        tainted, _ = rows_of(case, kv, 0, 75)
        assert not tainted[20:].isfinite().all()


# Keys as (count, score, value): a sum of -0 before the last split, and in it again; then keys that
# the rows do not see, whose 0 * 1 = +0 makes +0 of it where they are walked.
TINY = -1.4e-45
ZEROS = ((64, 0.0, TINY), (64, 8.0, -0.0), (32, 8.0, TINY), (16, 16.0, -0.0), (16, 0.0, 1.0))


def zeros(attn: Any) -> Result:
    """Rows 160 .. 175, a program that does not see the last keys: 0, of one sign or the other."""
    q = torch.ones(192, 1, 16)
    k, v = (torch.cat([torch.full((n, 1, 16), x[i]) for n, *x in ZEROS]) for i in range(2))
    offsets = torch.tensor([0, 192], dtype=torch.int32)
    order = ReductionOrder(split=64, tile=16, block_m=16)
    more: dict[str, Any] = {"cu_seqlens_q": offsets, "cu_seqlens_k": offsets, "order": order}
    out, lse = attn.prefill(q, k, v, scale=1 / 16, **more)
    assert not out[160:176].any()
    return out[160:176], lse[160:176]


def test_zeros_keep_their_sign(mutate: Mutate) -> None:
    signed = mutate(
        {"kernels.py": [("safe[:, None], A.shape)) + 0.0", "safe[:, None], A.shape))")]}
    )
    for attn, same in ((own, True), (signed, False)):
        base = zeros(attn)
        with using(SKIP):
            assert (unequal(zeros(attn), base) == 0) == same


def test_rows_that_see_no_key() -> None:
    case = FORMS["plain"]
    kv = cases.lay(case, [2], [0])
    five = torch.tensor([5], dtype=torch.int32)
    more: dict[str, Any] = {"q_starts": five - 5, "q_lens": five, "max_q": 5}
    results = []
    for tiles in (Tiles(), SKIP):
        with using(tiles):
            out = own.attend_prefill(case.rows[0][:5], kv, scale=1.0, order=WIDE, **more)
            results.append(out)
    assert unequal((results[0][0], results[0][1][3:]), (results[1][0], results[1][1][3:])) == 0
    assert (results[1][0][:3] == 0).all()
    assert (results[1][1][:3] == -torch.inf).all()
    empty = cases.lay(case, [0], [0])
    with using(SKIP):
        out, lse = own.attend_decode(case.rows[0][:1], empty, max_kv=9, scale=1.0, order=WIDE)
    assert (out == 0).all()
    assert (lse == -torch.inf).all()


CUTS = {"GB": 1, "CB": 16, "FLIGHT": 3}, {"GB": 2, "CB": 32, "FLIGHT": 8}


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_columns_heads_and_loads_of_the_merge_change_no_bit(
    cut: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Case(heads=6, kv_heads=2, dim=40, order=ReductionOrder(split=16, tile=16, block_m=16))
    both = (plain, replace(plain, window=40, sinks=True, dtype=torch.bfloat16))
    for case in both:
        reference(case)
    monkeypatch.setattr(api, "combining", lambda *_: (cut, 1))
    for case in both:
        assert wrong(case, [], [0, 15, 16, 47, 48, 74]) == (0, 0)


def _launching(attn: Any) -> Any:
    return importlib.import_module(f"{attn.__name__}.launching")


def test_products_in_pieces_are_the_same_chain(
    mutate: Mutate, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(dim=40, order=ReductionOrder(split=64, tile=32, block_m=16))
    reference(case)
    late = mutate(
        {"tile/kernels.py": [("product(a_low, tl.trans(b_low)", "product(a_high, tl.trans(b_high)"),
                             ("return product(a_high, tl.trans(b_high)",
                              "return product(a_low, tl.trans(b_low)")]}
    )  # fmt: skip
    for attn, same in ((own, True), (late, False)):
        monkeypatch.setattr(_launching(attn), "_piece", lambda q: 16)
        chunks, alone = wrong(case, [(34, 75)], [0, 74], attn)
        assert (chunks == 0, alone == 0) == (same, same)


def test_another_order_of_the_loads_is_seen(
    mutate: Mutate, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(order=ReductionOrder(split=16, tile=16, block_m=16))
    reference(case)
    late = mutate({"kernels.py": [("i + j", "i + FLIGHT - 1 - j")]})
    monkeypatch.setattr(late.api, "combining", lambda *_: ({"GB": 2, "CB": 16, "FLIGHT": 4}, 1))
    assert wrong(case, [], [0, 15], late) == (0, 0)  # one split
    assert wrong(case, [], [40, 74], late)[1] > 0


def test_chunks_and_decode_still_agree_when_only_one_of_them_skips() -> None:
    case = FORMS["a window over tiles"]
    reference(case)
    with using(SKIP):
        skipped = last(case, PLACES)
    assert unequal(skipped, last(case, PLACES)) == 0
    assert unequal(chunk(case, 33, 75), tuple(x[33:] for x in reference(case))) == 0  # type: ignore[arg-type] # two
