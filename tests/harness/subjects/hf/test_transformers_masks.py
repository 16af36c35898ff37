"""What the kvparity attention reads from transformers' masks, and which it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers_masks import make_mask, window

from kvparity.subjects.base import UnsupportedError
from kvparity.subjects.hf import mask as masks
from kvparity.subjects.hf.run_counts import Observation, observing


def ahead(batch: Any, head: Any, q: Any, k: Any) -> Any:
    return k <= q + 1


def sparse(batch: Any, head: Any, q: Any, k: Any) -> Any:
    return (k <= q) & ((k - q) % 2 == 0)


@pytest.mark.parametrize("function", [ahead, sparse])
def test_rows_with_later_keys_or_gaps_are_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(UnsupportedError, match="do not end at their own key or have gaps"):
        make_mask(6, 6, 0, mask_function=function)


def test_what_a_window_sees_is_read() -> None:
    found = masks.of(make_mask(6, 6, 0, mask_function=window(3)))
    assert found.firsts.tolist() == [[0, 0, 0, 1, 2, 3]]
    assert found.kv_lens.tolist() == [6]
    assert [found.is_window(n) for n in (2, 3, 4, 0)] == [False, True, False, False]
    assert masks.of(make_mask(6, 6, 0)).is_window(6)
    # Five keys have left the cache: one is still there for nobody, pads are not counted.
    real = torch.tensor([[False, True, True, True] + [True] * 4])
    found = masks.of(make_mask(1, 3, 7, real, kv_offset=5, mask_function=window(3)))
    assert (found.kv_lens.tolist(), found.own.tolist()) == ([7], [[6]])
    assert (found.firsts.tolist(), found.slots.tolist()) == ([[4]], [[0, 0, 0, 0, 0, 1, 2]])
    assert (found.before, found.solid, found.first) == (True, False, 2)


def test_the_last_rows_of_a_mask_are_known() -> None:
    with observing(Observation()):
        mask = make_mask(6, 6, 0)
        assert masks.of(mask[:, :, -2:]).own.tolist() == [[4, 5]]
        assert masks.of(mask[:, :, 0:]).queries == 6
        for other in (mask[:, :, :2], mask[:, :, 1:, 1:], mask.clone()[:, :, -2:]):
            with pytest.raises(UnsupportedError, match="did not pass on"):
                masks.of(other)


def test_pads_inside_a_prompt_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="pads inside a prompt"):
        make_mask(5, 5, 0, torch.tensor([[True, False, True, True, True]]))


def test_what_is_read() -> None:
    real = torch.tensor(
        [[0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1], [1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0]]
    ).bool()
    found = masks.of(make_mask(2, 8, 4, real))  # a static cache of 8 slots, 6 of them filled
    assert found.q_lens.tolist() == [2, 2, 1, 0]
    assert found.q_starts[:3].tolist() == [0, 0, 0]
    assert found.kv_lens.tolist() == [4, 5, 5, 0]
    assert found.starts[:1].tolist() == [2]
    assert (found.max_kv, found.first, found.all_real) == (5, 4, False)
    assert not found.solid
    rows = [r[:n] for r, n in zip(found.slots.tolist(), found.kv_lens.tolist(), strict=True)]
    assert rows == [[2, 3, 4, 5], [0, 1, 2, 4, 5], [0, 1, 2, 3, 4], []]


def test_queries_beyond_the_cache_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="slot 3 of 4"):
        make_mask(2, 4, 3)
