"""Attention whose orders are known: each probe must recover them, whatever the numbers are of."""

from __future__ import annotations

import random

import pytest
import torch
from order_known import Known, Orders, side
from order_nested import drawn, given_anyhow

from kvparity.relations.order import recover
from kvparity.relations.order.denominator import Denominator
from kvparity.relations.order.keys import KeyOrder
from kvparity.relations.order.products import ProductOrder
from kvparity.relations.order.query_products import QueryProducts
from kvparity.relations.order.triples import recover_triples

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
DRAW = random.Random(7)
FORMS = {
    "float32": {},
    "bfloat16": {"dtype": BF16},
    "float16": {"dtype": F16},
    "fp8_e4m3": {"store": "fp8_e4m3(head)"},
    "fp8_e4m3-bfloat16": {"store": "fp8_e4m3(tensor)", "dtype": BF16},
    "fp8_e4m3-float16": {"store": "fp8_e4m3(tensor)", "dtype": F16},
    "fp8_e5m2": {"store": "fp8_e5m2(tensor)"},
    "fp8_e5m2-float16": {"store": "fp8_e5m2(head)", "dtype": F16},
    "int8": {"store": "int8(4)"},
    "int8-float16": {"store": "int8(8)", "dtype": F16},
    "int4-bfloat16": {"store": "int4(2)", "dtype": BF16},
    "softcap": {"softcap": 30.0},
    "softcap-bfloat16": {"softcap": 5.0, "dtype": BF16},
    "window": {"window": 9},
}


def orders(keys: int, dim: int = 16, sink: bool = False) -> Orders:
    return Orders(drawn(dim, DRAW), drawn(keys + sink, DRAW), drawn(keys, DRAW))


def seen(form, keys: int) -> int:
    return min(keys, FORMS[form].get("window", keys))


def tree(nested):
    return given_anyhow(nested, DRAW)


MODES = [
    (form, mode)
    for form in FORMS
    for mode in ("uniform", "contrast", "alone")
    if mode == "alone" or "e4m3" not in form  # which holds masks beside lighter keys alone
]
LARGEST = {"uniform": 60, "contrast": 24, "alone": 14}  # 60: more units than bfloat16 counts


@pytest.mark.parametrize(("form", "mode"), MODES)
def test_the_order_of_keys_is_found(form, mode):
    for which, keys, turn in (("decode", 3, 0), ("prefill", 8, 1), ("decode", LARGEST[mode], 2)):
        own = orders(seen(form, keys))
        at = side(Known(own), which, keys=keys, rows=3, **FORMS[form])
        found, stats = recover(KeyOrder(at, mode, turn=turn), seed=turn)
        assert found == tree(own.keys), (which, keys)
        assert stats.launches > 0


@pytest.mark.parametrize("form", FORMS)
def test_the_order_of_the_denominator_is_found(form):
    for which, keys, turn, sinks in (
        ("decode", 3, 0, False),
        ("prefill", 12, 1, False),
        ("decode", 7, 2, True),
        ("prefill", 11, 0, True),
    ):
        own = orders(seen(form, keys), sink=sinks)
        at = side(Known(own), which, keys=keys, rows=2, sinks=sinks, **FORMS[form])
        found, stats = recover_triples(Denominator(at, turn=turn), seed=turn)
        assert found == tree(own.weights), (which, keys, sinks)
        assert stats.launches > 0


@pytest.mark.parametrize("form", FORMS)
def test_the_order_of_products_is_found(form):
    for which, keys, turn, dim in (
        ("decode", 3, 0, 16),
        ("prefill", 4, 1, 16),
        ("decode", 20, 2, 48),
        ("prefill", 5, 3, 32),
    ):
        own = orders(seen(form, keys), dim)
        at = side(Known(own), which, keys=keys, rows=2, **FORMS[form] | {"heads": (4, 2, dim)})
        oracle = (QueryProducts if at.coded else ProductOrder)(at, turn=turn)
        found, stats = recover(oracle, seed=turn)
        assert found == tree(own.dims), (which, keys, dim)
        assert stats.launches > 0
