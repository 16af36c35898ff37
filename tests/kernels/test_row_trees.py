"""Rows added as lanes of a warp add them, beside each lane written out; which launches do so."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from kvparity_kernels import device_model, row_trees
from kvparity_kernels.attention import decode, prefill
from kvparity_kernels.device_model import Summed
from kvparity_kernels.fixed_arithmetic import tree_sum
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.row_trees import RowKey, RowTree
from kvparity_kernels.rules import triton_version
from kvparity_kernels.stream import listening
from kvparity_kernels.tensor_cores import Architecture

QUADS = RowTree((1, 8, 16), (4, 2), pairs=True)  # of a fragment, 32 columns
RUNS = RowTree((1, 2), (16, 8, 4), pairs=True)  # of a blocked layout
ORDER = ReductionOrder(split=32, tile=32, block_m=16)
KEY = RowKey("sm_90", triton_version(), 32, 16, 4, 32, 16)


def by_lanes(row: np.ndarray, own: list[list[int]], apart: list[int], pairs: bool) -> np.float32:
    """Every lane adds its columns and then what lanes so far apart have."""
    sums = []
    for columns in own:
        values = [row[each] for each in columns]
        while len(values) > 1:
            if pairs:
                values = [a + b for a, b in zip(values[::2], values[1::2], strict=True)]
            else:
                values = [values[0] + values[1], *values[2:]]
        sums.append(values[0])
    for each in apart:
        sums = [total + sums[lane ^ each] for lane, total in enumerate(sums)]
    assert len(set(sums)) == 1
    return sums[0]


LAYOUTS = {
    "fragment": (QUADS, [[8 * b + 2 * t + e for b in range(4) for e in (0, 1)] for t in range(4)]),
    "runs": (RUNS, [[4 * t + e for e in range(4)] for t in range(8)]),
}


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_tree_is_what_lanes_do(name: str, pairs: bool) -> None:
    tree, own = LAYOUTS[name]
    tree = replace(tree, pairs=pairs)
    x = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    apart = [len(own) >> n for n in range(1, len(own).bit_length())]
    wanted = np.array([by_lanes(row, own, apart, pairs) for row in x])
    assert tree.add(x).tobytes() == wanted.tobytes()
    others = {  # each has other bits, or the rows would show nothing
        "lanes": replace(tree, across=tree.across[::-1]),
        "registers": replace(tree, own=tree.own[::-1]),
        "form": replace(tree, pairs=not pairs),
        "columns": replace(
            tree, own=tree.across[:1] + tree.own[1:], across=tree.own[:1] + tree.across[1:]
        ),
    }
    same = [what for what, other in others.items() if other.add(x).tobytes() == wanted.tobytes()]
    assert same == []
    assert tree_sum(x, 1).tobytes() != wanted.tobytes()


def attended(device: Architecture | None) -> tuple[Tensor, Tensor, Counter[Summed]]:
    """LSEs of prefill over 40 keys, and of decode over all of them."""
    made = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(40, 1, 16, generator=made) for _ in range(3))
    told = Counter[Summed]()
    many, one = torch.tensor([0, 40], dtype=torch.int32), torch.tensor([40], dtype=torch.int32)
    with device_model.using(device), listening(Summed, lambda event: told.update([event])):
        _, whole = prefill(q, k, v, cu_seqlens_q=many, cu_seqlens_k=many, scale=1.0, order=ORDER)
        _, last = decode(q[-1:], k[None], v[None], kv_lens=one, scale=1.0, order=ORDER)
    return whole, last, told


def test_a_launch_takes_the_tree_that_was_read_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_trees, "table", dict)
    halved, last, told = attended("sm_90")
    assert torch.equal(halved[-1:], last)
    assert set(told) == {Summed("sm_90", read=False)}
    monkeypatch.setattr(row_trees, "table", lambda: {KEY: RowTree((1, 8, 16), (2, 4), pairs=True)})
    found, last, told = attended("sm_90")
    assert torch.equal(found[-1:], last)
    assert set(told) == {Summed("sm_90", read=True)}
    assert not torch.equal(found, halved)
    assert not attended(None)[2]
    for name in ("architecture", "triton", "bits", "block_m", "num_warps", "tile", "head_dim"):
        other = {replace(KEY, **{name: None}): QUADS}
        monkeypatch.setattr(row_trees, "table", lambda other=other: other)
        assert set(attended("sm_90")[2]) == {Summed("sm_90", read=False)}, name


def test_other_kernels_have_no_tree() -> None:
    assert row_trees.of_launch("sm_90", "norm.rms_norm", {}, 4) is None
