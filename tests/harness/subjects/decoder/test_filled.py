"""Rows that nobody reads leave the bits of all others: the last layer that writes attends to none.

What is filled has its keys and values in every layer; behind the last layer that writes a cache
nothing of it is computed.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kvparity.plan.schedule import Layout, Member, Span
from kvparity.subjects.decoder.config import from_contract
from kvparity.subjects.decoder.seeded import seeded
from kvparity.subjects.decoder.subject import DecoderSubject
from kvparity.subjects.events import counting
from kvparity_contracts.decoder import DecoderConfig
from kvparity_kernels.order import ReductionOrder

IDS = [(41 * n * n + 7 * n + 3) % 64 for n in range(24)]


def subject(**config: Any) -> DecoderSubject:
    shape = {
        "vocab_size": 64, "hidden_size": 8, "intermediate_size": 8, "heads": 1, "kv_heads": 1,
        "head_dim": 16, "max_positions": 32,
    }  # fmt: skip
    built = from_contract(DecoderConfig.model_validate(shape | config))
    weights = seeded(built, 0, torch.float32, torch.device("cpu"))
    order = ReductionOrder(split=32, tile=16, block_m=16)
    return DecoderSubject(built, weights, kv_cache="float32", order=order, twin=True)


def rows(which: DecoderSubject, *, fill: bool) -> tuple[Tensor, int]:
    """Logits of the last rows behind 20 filled ones, and how often prefill attended."""
    session = which.session((Member("a", 24, 20),), Layout())
    with counting() as counts:
        (*none,) = session.forward((Span(0, 0, 20, rows_from=20, fill=fill),), [IDS[:20]])
        found = [*session.forward((Span(0, 20, 24, rows_from=20),), [IDS[20:]])]
    assert none == []
    return torch.cat(found), counts["attention.prefill"]


@pytest.mark.parametrize(
    ("config", "layers", "filled"),
    [
        ({"layers": 1}, 1, 0),
        ({"layers": 2}, 2, 1),
        # The two last layers read the caches of others: none of them is computed.
        (
            {"layers": 4, "kv_shared_layers": 2, "sliding_window": 6,
             "layer_types": ["sliding", "full", "sliding", "full"]},
            4,
            1,
        ),
    ],
)  # fmt: skip
def test_filled_rows_leave_all_bits(config: dict[str, Any], layers: int, filled: int) -> None:
    which = subject(**config)
    (right, all_of), (found, some) = rows(which, fill=False), rows(which, fill=True)
    assert torch.equal(found, right)
    assert torch.isfinite(found).all()
    assert (all_of, some) == (2 * layers, filled + layers)
