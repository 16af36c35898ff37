"""Each guard of the reduction order is needed: without it, the equality test goes red.

A mutant is a copy of the attention package with a few lines replaced. Where the interpreter cannot
see a guard (contraction by the compiler, TF32, the approximate division), it is tested on compiled
code in test_attention_compile.py; that the flags reach every launch is tested in test_launch.py.
Not visible without a GPU: that prefill and decode share block_m and num_warps, and that splits are
walked whole.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from kvparity_kernels import fixed_arithmetic
from kvparity_kernels.order import ReductionOrder

Mutate = Callable[[dict[str, list[tuple[str, str]]]], Any]
Pieces = list[tuple[int, float, float]]


SHIFTED = [  # splits that start where the chunk starts, instead of at absolute multiples
    ("for i in tl.range(lowest // SPLIT, tl.cdiv(seen, SPLIT)):",
     "shift = tl.maximum(kv_len - q_len, 0) % SPLIT\n"
     "        for i in tl.range(0, tl.cdiv(seen + SPLIT - shift, SPLIT)):"),
    ("i * SPLIT, kv_len, scale, lowest, seen - 1,",
     "i * SPLIT - (SPLIT - shift) % SPLIT, kv_len, scale, lowest, seen - 1,"),
    ("here = key < kv_len", "here = (key >= 0) & (key < kv_len)"),
]  # fmt: skip

MUTANTS: dict[str, dict[str, list[tuple[str, str]]]] = {
    "split edges are absolute": {"kernels.py": SHIFTED},
    "split from the order, not from the batch": {
        "launching.py": [
            ('"SPLIT": order.split,', '"SPLIT": order.split // (1 if kv.batch > 2 else 2),'),
        ],
        "api.py": [("max_kv // order.split", "max_kv // (order.split // 2)")],
    },
    "tile from the order, not from the query length": {
        "launching.py": [('"TILE": order.tile,', '"TILE": order.tile * (2 if len(q) > 16 else 1),')]
    },
    "float32 partials": {
        "api.py": [
            (
                "        **cut,",
                '        "PART_A": torch.full((kv.batch * kv_heads * splits * group * dim,), '
                "float('nan'), dtype=torch.float16),\n        **cut,",
            )
        ]
    },
    "ascending merge": {
        "kernels.py": [
            (
                "at = (group * splits + i + j) * G + r",
                "at = (group * splits + tl.maximum(count - 1 - i - j, 0)) * G + r",
            )
        ]
    },
    "one merge, with the fma spelled out": {
        "kernels.py": [
            ("@triton.jit\ndef finish", "@triton.jit\ndef loose(M, L, A, m, l, a):\n"
             "    top = tl.maximum(M, m)\n"
             "    old = tl.exp2(M - top)\n"
             "    new = tl.exp2(m - top)\n"
             "    return top, L * old + l * new, A * old[:, None] + a * new[:, None]\n\n\n"
             "@triton.jit\ndef finish"),
            ("            a = tl.load(PART_A + (at[:, None] * D + cols), mask=held, other=0.0)\n"
             "                M, L, A = merge(M, L, A, m, l, a)",
             "            a = tl.load(PART_A + (at[:, None] * D + cols), mask=held, other=0.0)\n"
             "                M, L, A = loose(M, L, A, m, l, a)"),
        ]
    },
    "masked loads": {
        "kernels.py": [("here = key < kv_len", "here = key < kv_len + 1")]
    },
}  # fmt: skip


@pytest.fixture
def case(lab: SimpleNamespace) -> Any:
    return lab.Case(lens=(70, 33), heads=2, kv_heads=1)


def test_unchanged_copy_is_green(lab: SimpleNamespace, mutate: Mutate, case: Any) -> None:
    copy = mutate({})
    assert copy is not lab.attention
    assert set(lab.compare(case, copy).values()) == {0}


@pytest.mark.parametrize("guard", MUTANTS)
def test_without_it_bits_differ(
    lab: SimpleNamespace, mutate: Mutate, case: Any, guard: str
) -> None:
    bad = lab.compare(case, mutate(MUTANTS[guard]))
    assert sum(bad.values()) > 0, bad


@pytest.mark.parametrize("guard", [name for name in MUTANTS if name != "masked loads"])
def test_the_mutants_are_right_apart_from_the_order(
    lab: SimpleNamespace, mutate: Mutate, case: Any, guard: str
) -> None:
    # So it is the order that the equality test catches, not a broken kernel.
    mutant = mutate(MUTANTS[guard])
    ours, theirs = (
        lab.prefill(case, [(0, 20, 70)], attn)[0] + lab.decode(case, [(0, 69)], attn)[0]
        for attn in (lab.attention, mutant)
    )
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() < 2e-3  # float16 partials: 2^-11 of values up to 4


TINY = -1.4e-45  # minus the smallest denormal: rescaled by a later, larger maximum it becomes -0


def minus_zero(lab: SimpleNamespace, attn: Any, pieces: Pieces, split: int) -> int:
    """Prefill against decode, in differing elements, of keys given as (count, score, value)."""
    q = torch.ones(sum(n for n, _, _ in pieces), 1, 16)
    k, v = (torch.cat([torch.full((n, 1, 16), piece[i]) for n, *piece in pieces]) for i in range(2))
    kv = {"scale": 1 / 16, "order": ReductionOrder(split=split, tile=16, block_m=64)}
    offsets = torch.tensor([0, len(q)], dtype=torch.int32)
    out, _ = attn.prefill(q, k, v, cu_seqlens_q=offsets, cu_seqlens_k=offsets, **kv)
    rows = torch.arange(len(q) - 32, len(q) - 16, 5)  # the last 16 keys are hidden from these
    alone, _ = attn.decode(
        q[rows],
        k.expand(len(rows), *k.shape).contiguous(),
        v.expand(len(rows), *v.shape).contiguous(),
        kv_lens=rows.int() + 1,
        **kv,
    )
    assert not alone.any()  # all zeros, of one sign or the other
    return int(lab.differing(out[rows], alone))


ZEROS: dict[str, tuple[Pieces, int]] = {
    "a hidden split": ([(16, 0.0, TINY), (16, 8.0, -0.0), (16, 8.0, 1.0)], 16),
    "hidden tiles of positive values": (
        # -0 before the last split, and in it again after two tiles; a tile of +0 more would end it.
        [(64, 0.0, TINY), (64, 8.0, -0.0), (16, 8.0, TINY), (16, 16.0, -0.0), (16, 0.0, 1.0)],
        64,
    ),
    "hidden tiles of negative values": (
        # Prefill adds 0 * -1 = -0 for them, and decode, which does not read them, +0.
        [(64, 0.0, TINY), (64, 8.0, -0.0), (32, 8.0, TINY), (16, 16.0, -0.0), (16, 0.0, -1.0)],
        64,
    ),
}


@pytest.mark.parametrize("hidden", ZEROS)
def test_signed_zero(lab: SimpleNamespace, mutate: Mutate, hidden: str) -> None:
    pieces, split = ZEROS[hidden]
    assert minus_zero(lab, lab.attention, pieces, split) == 0
    signed = mutate(
        {"kernels.py": [("safe[:, None], A.shape)) + 0.0", "safe[:, None], A.shape))")]}
    )
    if hidden == "hidden tiles of negative values":
        assert minus_zero(lab, signed, pieces, split) > 0


def test_dead_splits_are_dropped_by_select(lab: SimpleNamespace, mutate: Mutate) -> None:
    # Rows 0 .. 15 share a program with row 16, the first of all that see the second split: NaN.
    case = lab.Case(lens=(32,), heads=1, kv_heads=1, order=ReductionOrder(16, 16, 32))
    q, k, v = case.rows(0)
    v[16:] = float("nan")
    offsets = torch.tensor([0, 32], dtype=torch.int32)
    by_arithmetic = mutate(
        {
            "kernels.py": [
                ("tl.where(live, top, M)", "top"),
                ("tl.where(live, L_top, L)", "L_top"),
                ("tl.where(live[:, None], A_top, A)", "A_top"),
            ]
        }
    )
    for attn, clean in ((lab.attention, True), (by_arithmetic, False)):
        out, _ = attn.prefill(
            q, k, v, cu_seqlens_q=offsets, cu_seqlens_k=offsets, scale=1.0, order=case.order
        )
        assert bool(out[:16].isfinite().all()) == clean


def test_the_dot_of_a_row_must_not_depend_on_its_place(
    lab: SimpleNamespace, case: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What BLAS does on many CPUs, planted so that the test does not depend on this one: rows are
    # summed in another order in the second half of a tile.
    def like_blas(
        a: fixed_arithmetic.Array, b: fixed_arithmetic.Array, start: fixed_arithmetic.Array
    ) -> fixed_arithmetic.Array:
        half = a.shape[0] // 2
        up = fixed_dot(a[:half], b, start[:half])
        down = fixed_dot(a[half:, ::-1], b[::-1], start[half:])
        return np.concatenate([up, down])

    fixed_dot = fixed_arithmetic.dot
    assert set(lab.compare(case, lab.attention).values()) == {0}
    monkeypatch.setattr(fixed_arithmetic, "dot", like_blas)
    assert sum(lab.compare(case, lab.attention).values()) > 0
