"""On the device: windows, rings, caps, sinks and stored codes change no bit between the paths."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from device_cases import Shape, sequence, unequal_results
from device_rules import RULES, Rules, faults, fresh, last

pytestmark = pytest.mark.gpu
SHAPE = Shape(dim=128, group=4)
LENGTH = 641  # past two splits and twice the widest window


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_decode_chunks_and_codes_have_the_bits_of_one_prefill(rules, dtype):
    one = sequence(LENGTH, SHAPE, dtype, seed=3)
    assert faults(one, SHAPE, rules, chunk=96) == []


def test_a_window_one_key_short_is_seen():
    one = sequence(LENGTH, SHAPE, torch.float32, seed=3)
    out, lse = fresh(one, SHAPE, Rules(window=100))
    short = last(one, LENGTH, SHAPE, Rules(window=99))
    assert unequal_results(short, (out[-1:], lse[-1:])) > 0


def test_a_scale_that_is_left_out_is_seen(monkeypatch):
    rules = Rules(store="fp8_e4m3(head)")
    one = sequence(LENGTH, SHAPE, torch.float32, seed=3)
    out, lse = fresh(one, SHAPE, rules)
    other = last(one, LENGTH, SHAPE, replace(rules, store="fp8_e4m3(tensor)"))
    assert unequal_results(other, (out[-1:], lse[-1:])) > 0
