"""A ring: key p lies in place p % ring. Window + chunk - 1 places are enough, one less is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from attention_cases import DTYPES, Case, chunk, last, lay, reference, unequal, wrong

from kvparity_kernels.attention import decode
from kvparity_kernels.keys import KeysValues

Mutate = Callable[[dict[str, list[tuple[str, str]]]], Any]
WINDOW, CHUNK = 20, 7
FULL = [(start, min(start + CHUNK, 75)) for start in range(0, 75, CHUNK)]


@pytest.mark.parametrize("layout", ["contiguous", "paged 8"])
@pytest.mark.parametrize("window", [1, WINDOW, 33])
def test_the_smallest_ring_is_enough(window: int, layout: str) -> None:
    case = Case(window=window, layout=layout, dtype=DTYPES[window % 3])
    positions = [window - 1, window, 62, 74]
    assert wrong(case, FULL[-3:], positions, rings=(window + CHUNK - 1, window)) == (0, 0)


def test_a_larger_ring_is_the_same() -> None:
    case = Case(window=WINDOW, layout="head-slot", store="int8(8)")
    assert wrong(case, FULL[-2:], [60], rings=(64, 29)) == (0, 0)
    assert wrong(case, FULL[-2:], [60], rings=(200, 75)) == (0, 0)  # nothing comes round


def test_a_ring_that_is_too_small_is_refused() -> None:
    case = Case(window=WINDOW)
    needed = WINDOW + CHUNK - 1
    with pytest.raises(
        ValueError,
        match=rf"a ring of {needed - 1} slots is too small for a window of {WINDOW} and {CHUNK} "
        rf"rows at once; it needs window \+ rows - 1 = {needed}",
    ):
        chunk(case, 42, 42 + CHUNK, ring=needed - 1)
    with pytest.raises(ValueError, match=r"too small .* and 1 rows at once; .* = 20"):
        last(case, [40], ring=WINDOW - 1)
    with pytest.raises(ValueError, match="a ring of 30 slots needs a window, found none"):
        last(Case(), [10], ring=30)


def test_without_the_refusal_one_place_less_would_be_seen(mutate: Mutate) -> None:
    careless = mutate({"launching.py": [("kv.ring >= needed,", "True,")]})
    case = Case(window=WINDOW)
    for lost in (0, 1):
        rings = (WINDOW + CHUNK - 1 - lost, WINDOW - lost)
        chunks, alone = wrong(case, [(42, 49)], [40, 74], careless, rings)
        assert (chunks > 0, alone > 0) == (lost == 1, lost == 1)


def test_the_modulus_of_another_ring_is_seen(mutate: Mutate) -> None:
    off = mutate({"launching.py": [('"ring": kv.ring,', '"ring": kv.ring + 1,')]})
    case = Case(window=WINDOW)
    chunks, alone = wrong(case, [(42, 49)], [40, 74], off, (WINDOW + CHUNK - 1, WINDOW))
    assert chunks > 0
    assert alone > 0


def test_public_decode_takes_a_ring() -> None:
    case, ring = Case(window=WINDOW), 23
    caches = torch.full((2, 2, 30, 2, 16), torch.nan)  # k/v, batch, capacity
    lens = [41, 9]
    for b, n in enumerate(lens):
        at = torch.arange(max(0, n - WINDOW), n)
        for value in (0, 1):
            caches[value, b, at % ring] = case.rows[1 + value][at]
    rows = [n - 1 for n in lens]
    more: dict[str, Any] = {"scale": case.scale, "order": case.order, "window": WINDOW}
    kv_lens = torch.tensor(lens, dtype=torch.int32)
    found = decode(case.rows[0][rows], *caches, kv_lens=kv_lens, ring=ring, **more)
    out, lse = reference(case)
    assert unequal((out[rows], lse[rows]), found) == 0
    with pytest.raises(ValueError, match="a ring of 31 slots does not fit into a capacity of 30"):
        decode(case.rows[0][rows], *caches, kv_lens=kv_lens, ring=31, **more)


def test_a_ring_that_the_cache_does_not_hold_leaves_nan() -> None:
    case = Case(window=WINDOW)
    kv = lay(case, [75], [55], ring=30)
    assert kv.starts is not None
    late = KeysValues(kv.k, kv.v, kv.kv_lens, starts=kv.starts + 8, ring=30)
    attend: dict[str, Any] = {"max_kv": 75, "scale": 1.0, "order": case.order, "window": WINDOW}
    from kvparity_kernels.attention import attend_decode

    assert not attend_decode(case.rows[0][74:], kv, **attend)[0].isnan().any()
    assert attend_decode(case.rows[0][74:], late, **attend)[0].isnan().all()
    with pytest.raises(ValueError, match="ring is -1; it must be a number of slots, or 0"):
        KeysValues(kv.k, kv.v, kv.kv_lens, starts=kv.starts, ring=-1)
