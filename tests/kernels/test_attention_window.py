"""A window: decode, chunks and one prefill have the same bits, and read nothing outside of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import attention_cases as cases
import pytest
import torch
from attention_cases import (
    DTYPES,
    LAYOUTS,
    SMALL,
    Case,
    chunk,
    last,
    reference,
    unequal,
    whole,
    wrong,
)

from kvparity_kernels import attention as own
from kvparity_kernels.order import ReductionOrder

Mutate = Callable[[dict[str, list[tuple[str, str]]]], Any]
CHUNKS = [(0, 7), (7, 30), (30, 31), (31, 75)]
WINDOWS = (1, 5, 16, 17, 31, 32, 33, 40)  # below, at and above a tile of 16 and a split of 32


def around(window: int, n: int = 75) -> list[int]:
    """Positions of rows with W - 1, W, W + 1 and 2 W + 1 keys, and the edges of splits."""
    near = {window - 2, window - 1, window, 2 * window, 31, 32, 64, n - 1}
    return sorted(t for t in near if 0 <= t < n)


@pytest.mark.parametrize("window", WINDOWS)
def test_every_path_has_the_bits_of_prefill(window: int) -> None:
    case = Case(window=window, dtype=DTYPES[window % 3])
    assert wrong(case, CHUNKS, around(window)) == (0, 0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_in_every_layout(layout: str, dtype: torch.dtype) -> None:
    case = Case(window=20, layout=layout, dtype=dtype)
    assert wrong(case, [(33, 40), (60, 75)], [18, 40, 52, 74]) == (0, 0)


@pytest.mark.parametrize(
    ("order", "heads"),
    [
        (ReductionOrder(split=16, tile=16, block_m=64), (2, 2)),
        (ReductionOrder(split=64, tile=32, block_m=16), (6, 1)),
    ],
    ids=["a tile is a split, all rows in one program", "three programs share a token"],
)
def test_other_orders(order: ReductionOrder, heads: tuple[int, int]) -> None:
    case = Case(window=20, order=order, heads=heads[0], kv_heads=heads[1], dim=24)
    assert wrong(case, [(33, 41), (41, 75)], [0, 19, 20, 74]) == (0, 0)


def test_a_window_beyond_all_keys_changes_nothing() -> None:
    plain, wide = Case(), Case(window=2**30)
    assert unequal(whole(plain), whole(wide)) == 0
    assert wrong(wide, [(40, 75)], [0, 74]) == (0, 0)


def test_one_key_less_in_one_path_is_seen() -> None:
    # The control of all of the above.
    case = Case(window=20)
    chunks, alone = wrong(case, [(40, 75)], [40, 74], window=19)
    assert chunks > 0
    assert alone > 0
    before = slice(0, 19)  # rows that a window of 19 does not cut
    narrow = whole(replace(case, window=19))
    assert unequal(tuple(x[before] for x in narrow), tuple(x[before] for x in whole(case))) == 0
    assert unequal(narrow, whole(case)) > 0


@pytest.mark.parametrize("low", ["(window - 1)", "window"])
def test_windows_that_part_between_the_kernels_are_seen(mutate: Mutate, low: str) -> None:
    # Prefill one key wider (-window) must be seen as decode against it; unchanged it is green.
    wider = mutate(
        {"kernels.py": [("row_first = row_last - (window - 1)", f"row_first = row_last - {low}")]}
    )
    case = Case(window=20)
    out, lse = reference(case)
    found = wider.attend_prefill(
        case.rows[0],
        cases.lay(case, [75], [0]),
        q_starts=torch.tensor([0], dtype=torch.int32),
        q_lens=torch.tensor([75], dtype=torch.int32),
        max_q=75,
        scale=case.scale,
        order=case.order,
        **case.rules(torch.arange(75)),
    )
    assert (unequal(found, (out, lse)) > 0) == (low == "window")


def read_mutant(mutate: Mutate) -> Any:
    return mutate({"kernels.py": [("here = here & (key >= lowest) & (key <= highest)", "pass")]})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_guard_bands_are_felt(mutate: Mutate, dtype: torch.dtype) -> None:
    # What a path does not see is NaN in all these tests. A kernel that reads it shows it.
    case = Case(window=20, dtype=dtype)
    reads = read_mutant(mutate)
    for bad in (chunk(case, 40, 44, reads), last(case, [40], reads)):
        assert bad[0].isnan().any()
    assert not last(case, [40])[0].isnan().any()


def test_keys_that_only_other_programs_see_are_not_read(mutate: Mutate) -> None:
    # 75 rows of 4 heads over 2 key heads: a program of 16 rows has 8 tokens. With key 20 NaN, all
    # tokens of those programs may be tainted that have a token among 20 .. 24, and no others.
    case = Case(window=5)
    clean = whole(case)

    def tainted(attn: Any) -> list[int]:
        kv = cases.lay(case, [75], [0])
        assert kv.starts is not None
        kv.v[kv.starts[0] + 20] = torch.nan
        out, _ = attn.attend_prefill(
            case.rows[0],
            kv,
            q_starts=torch.tensor([0], dtype=torch.int32),
            q_lens=torch.tensor([75], dtype=torch.int32),
            max_q=75,
            scale=case.scale,
            order=case.order,
            window=5,
        )
        same = (out.view(torch.int32) == clean[0].view(torch.int32)).flatten(1).all(1)
        return sorted({t // 8 for t in range(75) if not same[t]})

    assert tainted(own) == [2, 3]  # tokens 16 .. 31
    assert set(tainted(read_mutant(mutate))) > {2, 3}


def test_decode_launches_no_more_splits_than_a_window_touches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kvparity_kernels import launch

    grids = []
    original = launch.launch

    def note(kernel: Any, grid: tuple[int, ...], **named: Any) -> None:
        grids.append((kernel.name, grid[0]))
        original(kernel, grid, **named)

    monkeypatch.setattr(launch, "launch", note)
    for window, most in ((0, 4), (1, 1), (2, 2), (33, 2), (34, 3), (2**30, 4)):
        last(Case(window=window), [74])
        assert grids[-2] == ("attention.decode_split", most), window
    assert SMALL.split == 32


def test_a_window_is_a_number_of_keys() -> None:
    for window in (-1, 2**30 + 1, 2.0, True):
        with pytest.raises(ValueError, match=rf"window is {window}; it must be a number of keys"):
            last(Case(), [3], window=window)
