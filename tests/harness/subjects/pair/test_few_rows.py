"""A kernel that gives all rows of a short step the window of its last one."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import semantic_pairs
import torch
from engine_calls import over, run, setting
from torch import Tensor

WINDOW, FEW = 12, 8


def last_window(
    q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, **more: Any
) -> Any:
    k, v = k.clone(), v.clone()
    edges = zip(cu_seqlens_q.tolist(), cu_seqlens_k.tolist(), strict=True)
    out, lse = [], []
    for (q0, k0), (q1, k1) in pairwise(edges):
        first = max(k0, k1 - WINDOW) if q1 - q0 <= FEW else k0
        found = semantic_pairs.prefill(
            q[q0:q1], k[first:k1], v[first:k1], cu_seqlens_q=torch.tensor([0, q1 - q0]),
            cu_seqlens_k=torch.tensor([0, k1 - first]), **more,
        )  # fmt: skip
        out.append(found[0])
        lse.append(found[1])
    return torch.cat(out), torch.cat(lse)


@pytest.mark.parametrize(
    ("path", "seen"), [("chunked(4)", True), ("chunked(8)", True), ("chunked(20)", False)]
)
def test_it_is_seen_where_a_path_runs_such_steps(path: str, seen: bool) -> None:
    plain = setting(["decode", path], module="semantic_pairs.py", window=WINDOW, empty="never")
    right, wrong = run(plain), run(over(plain, prefill=last_window))
    assert {name: found.outcome for name, found in right.items()} == dict.fromkeys(right, "holds")
    assert [wrong["decode"].outcome, wrong[path].outcome] == [
        "holds", "differs" if seen else "holds",
    ]  # fmt: skip
