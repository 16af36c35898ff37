"""What attention kernels may not look at: memory beside the cache, and results nobody computed.

Beside the cache lie numbers as good as any other: what reads them is not seen by a NaN there.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kvparity_kernels import launch as launcher
from kvparity_kernels.attention import attend_decode, attend_prefill
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.order import ReductionOrder

SLOTS, BESIDE, HEADS, DIM = 20, 12, 2, 16
ORDER = ReductionOrder(split=16, tile=16, block_m=16)
HOW: dict[str, Any] = {"scale": 0.25, "order": ORDER}


def draw(rows: int) -> Tensor:
    return torch.randn(rows, HEADS, DIM, generator=torch.Generator().manual_seed(rows))


def amid(starts: list[int], lens: list[int], **more: Any) -> KeysValues:
    """A cache of ``SLOTS`` slots in the middle of finite numbers."""
    k, v = (draw(2 * BESIDE + SLOTS + i)[BESIDE : BESIDE + SLOTS] for i in range(2))
    return KeysValues(k, v, torch.tensor(lens).int(), starts=torch.tensor(starts), **more)


def decoded(kv: KeysValues, **more: Any) -> tuple[Tensor, Tensor]:
    q = draw(kv.batch)
    return attend_decode(q, kv, max_kv=int(kv.kv_lens.max()), **HOW, **more)


def prefilled(kv: KeysValues, **more: Any) -> tuple[Tensor, Tensor]:
    """The last row of each sequence, by prefill."""
    one = torch.ones(kv.batch, dtype=torch.int32)
    starts = torch.arange(kv.batch, dtype=torch.int32)
    return attend_prefill(draw(kv.batch), kv, q_starts=starts, q_lens=one, max_q=1, **HOW, **more)


OUTSIDE: dict[str, tuple[KeysValues, dict[str, Any]]] = {
    "the last key lies behind": (amid([0, SLOTS - 7], [8, 8]), {}),
    "all keys lie behind": (amid([0, SLOTS], [8, 8]), {}),
    "the first key lies before": (amid([0, -1], [8, 8]), {}),
    "more keys than slots": (amid([0, 0], [8, SLOTS + 1]), {}),
    "a ring whose last slot lies behind": (
        amid([0, SLOTS - 9], [8, 40], ring=10),
        {"window": 10},
    ),
}


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kernel", [decoded, prefilled], ids=["decode", "prefill"])
def test_a_sequence_that_the_cache_does_not_hold_is_nan(name: str, kernel: Any) -> None:
    kv, more = OUTSIDE[name]
    out, lse = kernel(kv, **more)
    assert out[0].isfinite().all()
    assert lse[0].isfinite().all()
    assert out[1].isnan().all()
    assert lse[1].isnan().all()


@pytest.mark.parametrize(
    ("kv", "more"),
    [(amid([0, SLOTS - 8], [8, 8]), {}), (amid([0, SLOTS - 10], [8, 40], ring=10), {"window": 10})],
    ids=["plain", "ring"],
)
def test_the_last_slot_is_the_caches_own(kv: KeysValues, more: dict[str, Any]) -> None:
    for kernel in (decoded, prefilled):
        assert all(x.isfinite().all() for x in kernel(kv, **more))


def test_a_split_that_nobody_computed_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each program of the first kernel but the last: of the second sequence its last split."""
    launch = launcher.launch

    def short(kernel: Any, grid: tuple[int, ...], **named: Any) -> None:
        if kernel.name == "attention.decode_split":
            grid = (grid[0] - 1, *grid[1:])
        launch(kernel, grid, **named)

    kv = amid([0, 0], [SLOTS, SLOTS])
    whole, _ = decoded(kv)
    monkeypatch.setattr(launcher, "launch", short)
    out, lse = decoded(kv)
    assert torch.equal(out[0], whole[0])
    assert whole.isfinite().all()
    assert out[1].isnan().all()
    assert lse[1].isnan().all()
