"""torch's own attention on whatever CPU this is: certificates and samples must fit together.

Which order a library takes depends on the processor, so nothing here knows it beforehand. What is
known: a report may not call a pair consistent whose random calls differ; if one of its trees
differs, both trees must explain their own side's bits; and the first difference is named.
"""

from __future__ import annotations

import pytest
import torch
from order_pairs import subject

from kvparity.pairs import sdpa
from kvparity.pairs.sdpa import BACKENDS
from kvparity.relations.order import OrderReport, order_report
from kvparity.subjects.pair.torch_sdpa import pair

KEYS, HEADS, CALLS = 64, (8, 8, 64), 50


@pytest.fixture(scope="module")
def reports() -> dict[str, OrderReport]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    cases = {"flash": torch.bfloat16, "math": torch.float32}
    found = {
        name: order_report(subject(pair(name), dtype, HEADS), KEYS, draws=CALLS)
        for name, dtype in cases.items()
    }
    torch.set_num_threads(before)
    return found


@pytest.mark.parametrize("name", ["flash", "math"])
def test_the_verdict_fits_what_was_found(reports, name):
    found = reports[name]
    statuses = {part.name: part.status for part in found.parts}
    differs = {part for part, status in statuses.items() if status == "different"}
    if found.verdict == "consistent":
        assert not differs
        assert found.drawn.equal == CALLS
    elif found.verdict == "different-order":
        assert differs - {"division"}
        assert any(part in found.reason for part in differs)
    elif found.verdict == "same-order-different-bits":
        assert differs <= {"division"}
        assert found.drawn.equal < CALLS or differs
    else:
        assert "not-a-tree" in statuses.values() or "replay" in found.reason


@pytest.mark.parametrize("name", ["flash", "math"])
def test_where_a_key_order_was_found_it_gives_the_bits(reports, name):
    found = reports[name]
    if found.parts[0].status in ("same", "different"):
        assert [done.side for done in found.replayed] == ["decode", "prefill"]
        for done in found.replayed:
            # 400 of 512: 16-bit results near the middle of two are not compared
            assert done.complete, (name, done)
            assert done.total >= 400
    else:
        assert found.verdict == "not-a-tree"
        assert found.reason


def test_bfloat16_flash_agrees_in_bits_and_not_in_order(reports):
    """On x86 with AVX2 or AVX-512: 50 calls agree, and decode adds keys in another order."""
    found = reports["flash"]
    if found.parts[0].status == "different":
        assert found.verdict == "different-order"
        assert found.parts[0].trees["decode"] != found.parts[0].trees["prefill"]
        if found.drawn.equal == CALLS:  # bits of samples alone would have said "the same"
            assert found.drawn.differing == 0
    else:
        assert found.verdict != "different-order" or found.parts[2].status == "different"


def test_float32_math_differs_in_bits_though_the_keys_are_added_alike(reports):
    """Where the key order is the same and bits differ, another part must tell or none of the five.

    On x86 with MKL the products do: Q K of one row goes through a matrix-vector kernel.
    """
    found = reports["math"]
    if found.parts[0].status == "same" and found.drawn.equal < CALLS:
        products = found.parts[2].status
        expected = "different-order" if products == "different" else "same-order-different-bits"
        assert found.verdict == expected


def test_unequal_lengths_are_called_one_by_one():
    q, k, v = (torch.randn(7, 2, 8) for _ in range(3))
    ends = torch.tensor([0, 3, 7], dtype=torch.int32)
    both = sdpa.math_prefill(q, k, v, cu_seqlens_q=ends, cu_seqlens_k=ends, scale=0.3)
    alone = sdpa.math_prefill(
        q[3:],
        k[3:],
        v[3:],
        cu_seqlens_q=ends[:2] * 4 // 3,
        cu_seqlens_k=ends[:2] * 4 // 3,
        scale=0.3,
    )
    torch.testing.assert_close(both[3:], alone, rtol=1e-5, atol=1e-6)
    caches = torch.randn(2, 5, 1, 8), torch.randn(2, 5, 1, 8)
    lens = torch.tensor([5, 2], dtype=torch.int32)
    rows = sdpa.math_decode(torch.randn(2, 2, 8), *caches, kv_lens=lens, scale=0.3)
    assert rows.shape == (2, 2, 8)
    with pytest.raises(ValueError, match="whole prompts"):
        sdpa.math_prefill(q[:1], k, v, cu_seqlens_q=ends // 3, cu_seqlens_k=ends, scale=0.3)


def test_all_four_backends_have_a_pair():
    assert sorted(BACKENDS) == ["cudnn", "efficient", "flash", "math"]
    for name in BACKENDS:
        assert pair(name).decode_name == f"kvparity.pairs.sdpa:{name}_decode"
