"""The node at which the sides of a pair part: told only if a replay gives the bits of both."""

from __future__ import annotations

import order_pairs as written
import pytest
import torch
from order_faults import FAULTS, HOW

from kvparity.relations.order.parting import Parting, parting
from kvparity.relations.order.row_order import probed_row
from kvparity.relations.order.row_replay import RowData
from kvparity.relations.order.sides import Side
from kvparity.subjects.attention_calls import StoredKV
from kvparity.subjects.pair.inputs import Inputs

NAMES = ("prefill", "decode")
KEYS = 35
PAIRS: dict[str, tuple[str, str, str]] = {
    "tile": ("sum of P V", "of 2 and 1 tiles", "the maximum is renewed at other keys"),
    "reverse": ("sum of P V", "the last first", "only prefill forms the partial sum"),
    "split": ("sum of P V", "3 splits from 0, 16, 32", "only decode forms the partial sum"),
    "ragged": ("sum of P V", "3 splits from 0, 12, 24", "only decode forms the partial sum"),
    "products": ("score", "2 splits from 0, 32", "only prefill forms the partial sum"),
    "reciprocal": ("result", "2 splits from 0, 32", "reciprocal is False for prefill and True"),
    "natural": ("denominator", "2 splits from 0, 32", "exp is exp2 in float64 for prefill"),
}


def parted(fault: str, nudge: float = 0.0) -> Parting | None:
    """Where the last row of a pair with a fault in decode parts."""
    subject = written.subject(written.pair(HOW, **FAULTS[fault][1]))
    heads, rng = subject.heads, torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(KEYS, count, heads.dim, generator=rng)
        for count in (heads.query, heads.kv, heads.kv)
    )
    ends, last = torch.tensor([0, KEYS], dtype=torch.int32), torch.tensor([KEYS], dtype=torch.int32)
    terms, width = subject.terms(), heads.query * heads.dim
    many = subject.call_prefill(Inputs(q, StoredKV(k, v)), ends, ends, coded=False, terms=terms)
    one = subject.call_decode(
        Inputs(q[-1:], StoredKV(k[None], v[None])), last, coded=False, terms=terms
    )
    prefill, decode = (
        probed_row(Side(subject, "prefill", keys=KEYS, batch=1, rows=KEYS)),
        probed_row(Side(subject, "decode", keys=KEYS, batch=1, rows=1)),
    )
    a, b = (x[-1, :width].view(heads.query, heads.dim) for x in (many, one))
    data = RowData(q[-1], k, v, subject.scale, None)
    return parting(data, (prefill, decode), (a, b + nudge), NAMES)


@pytest.mark.parametrize("fault", PAIRS)
def test_the_first_node_of_a_pair(fault: str) -> None:
    node, walk, sums = PAIRS[fault]
    found = parted(fault)
    assert found is not None
    assert found.node == node
    assert walk in found.walks[1]
    assert sums in found.sums
    assert f"the {node} differs first, by {found.ulps} ulp" in found.words(*NAMES)


@pytest.mark.parametrize(("fault", "nudge"), [("wide", 0.0), ("tile", 1e-6)])
def test_bits_that_no_replay_gives_are_not_explained(fault: str, nudge: float) -> None:
    assert parted(fault, nudge) is None
