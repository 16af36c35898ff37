"""Which tiles are in force, and which are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.rules import current
from kvparity_kernels.tiles import BASE, LinearTile, Tiles, candidates, merged, using

CPU = torch.device("cpu")
SMALL, LARGE = LinearTile(16, 32, 128, 4, 4), LinearTile(128, 128, 64, 8, 3)


def test_a_cpu_has_the_base_unless_told_otherwise() -> None:
    assert current(CPU, torch.bfloat16) == current(torch.device("meta"), torch.float32) == BASE
    with using(Tiles(decode_block_m=16)):
        assert current(CPU, torch.bfloat16) == Tiles(decode_block_m=16)
        with using(BASE):
            assert current(CPU, torch.bfloat16) == BASE
        assert current(CPU, torch.bfloat16).decode_block_m == 16
    assert current(CPU, torch.bfloat16) == BASE


def test_a_gpu_has_what_the_rules_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def in_force(arch: str, triton: str, dtype: str) -> Tiles:
        asked.append((arch, triton, dtype))
        return Tiles(skip_hidden=True)

    from kvparity_kernels import rules

    monkeypatch.setattr(rules, "in_force", in_force)
    monkeypatch.setattr(rules, "here", lambda device: ("sm_90", "3.6"))
    device = torch.device("cuda", 1)
    allowed = Tiles(skip_hidden=True)
    assert current(device, torch.bfloat16) == allowed
    assert asked == [("sm_90", "3.6", "bfloat16")]
    assert current(device, torch.bfloat16, ReductionOrder()) == allowed
    assert current(device, torch.bfloat16, ReductionOrder(split=128)) == BASE  # not measured
    with using(BASE):
        assert current(device, torch.bfloat16) == BASE
    assert len(asked) == 2


def test_the_base_tile_of_a_linear_layer_is_the_orders() -> None:
    order = ReductionOrder(block_m=32, num_warps=8, linear_k=64)
    assert BASE.linear_tile(1, order) == LinearTile(32, 64, 64, 8, 3)


def test_a_linear_tile_is_chosen_by_rows() -> None:
    order = ReductionOrder()
    tiles = Tiles(linear=((8, SMALL), (64, LARGE)))
    base = BASE.linear_tile(1, order)
    assert [tiles.linear_tile(rows, order) for rows in (0, 8, 9, 64, 65)] == [
        *(SMALL, SMALL, LARGE, LARGE, base)
    ]
    assert Tiles(linear=((8, SMALL), (0, LARGE))).linear_tile(10**6, order) == LARGE
    with pytest.raises(ValueError, match="no multiple of the order's linear_k 256"):
        tiles.linear_tile(1, ReductionOrder(linear_k=256))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tiles(decode_block_m=8), "decode_block_m is 8; it must be a power of two"),
        (lambda: Tiles(prefill_block_m=48), "prefill_block_m is 48"),
        (lambda: Tiles(prefill_warps=3), "prefill_warps is 3"),
        (lambda: Tiles(decode_warps=True), "decode_warps is True"),
        (lambda: Tiles(skip_hidden=1), "skip_hidden is 1"),  # type: ignore[arg-type]
        (lambda: Tiles(linear=((64, LARGE), (8, SMALL))), r"at most \[64, 8\] rows"),
        (lambda: Tiles(linear=((0, LARGE), (8, SMALL))), r"at most \[0, 8\] rows"),
        (lambda: Tiles(linear=((8, LARGE), (8, SMALL))), r"at most \[8, 8\] rows"),
        (lambda: LinearTile(16, 32, 100, 4, 4), "block_k is 100"),
        (lambda: LinearTile(16, 32, 64, 4, 0), "num_stages is 0"),
    ],
)
def test_what_cannot_run_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_candidates_bear_their_names_and_go_together() -> None:
    found = candidates()
    for name, tiles in found.items():
        assert tiles != BASE
        if name.startswith("linear "):
            ((_, tile),) = tiles.linear
            assert name == f"linear {tile}"
    both = merged(found.values())
    assert (both.decode_block_m, both.prefill_block_m, both.skip_hidden) == (16, 128, True)
    assert [rows for rows, _ in both.linear] == [16, 64, 0]
    first: dict[int, LinearTile] = {}
    for tiles in found.values():
        for rows, tile in tiles.linear:
            first.setdefault(rows, tile)
    assert dict(both.linear) == first
    assert merged([]) == BASE
