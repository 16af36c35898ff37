"""On the device: rules in force hold, a check sees one that does not, and launches follow rules."""

from __future__ import annotations

import pytest
import torch

from kvparity.core.bits import bits
from kvparity.tiles.cases import AttentionCase
from kvparity.tiles.check import check
from kvparity.tiles.probe import TileProbe
from kvparity_kernels import attention, rules
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.tiles import Tiles

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")
D16 = "decode_block_m=16"


@pytest.fixture
def planted(monkeypatch):
    """A rule for this place that nobody measured: decode takes 16 rows."""
    arch, triton = rules.here(CUDA)
    row = rules.Rule(arch, triton, "bfloat16", D16, True, "this one", "docs/results/none.json")
    monkeypatch.setattr(rules, "table", lambda: (row,))
    rules.in_force.cache_clear()
    yield
    rules.in_force.cache_clear()


def test_the_rules_in_force_hold():
    found = check(CUDA, rules.DTYPES)
    assert found.verdict in ("base", "holds"), found.broken


def test_launches_follow_a_rule(planted):
    from kvparity_kernels.launch import record

    assert rules.current(CUDA, torch.bfloat16) == Tiles(decode_block_m=16)
    probe = TileProbe([AttentionCase("plain", 2, 1, 64, (65,), 3)], torch.bfloat16, CUDA)
    with record() as log:
        for call in probe.calls.values():
            call(ReductionOrder())
    sizes = {n: f["constexprs"].get("BM") for n, f in log.kernels.items()}
    assert (sizes["attention.prefill"], sizes["attention.decode_split"]) == (64, 16)


def test_a_rule_that_does_not_hold_is_seen(planted, monkeypatch):
    own = attention.attend_decode

    def decode(q, *arguments, **named):
        out, lse = own(q, *arguments, **named)
        if rules.current(q.device, q.dtype).decode_block_m == 16:
            bits(out := out.clone()).view(-1)[0] ^= 1
        return out, lse

    monkeypatch.setattr(attention, "attend_decode", decode)
    found = check(CUDA, ("bfloat16",))
    assert found.verdict == "differs"
    assert [each.rule.choice for each in found.broken] == [D16]
