"""Which weights keys have while their order is asked for."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from order_known import Known, chains, holds, side

from kvparity.relations.order.keys import KeyOrder

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
WIDE = {"float32": {}, "bfloat16": {"dtype": BF16}, "int8": {"store": "int8(4)"}}
NARROW = {
    "float16": {"dtype": F16},
    "int8-float16": {"store": "int8(4)", "dtype": F16},
    "fp8_e5m2": {"store": "fp8_e5m2(head)"},
}
E4M3 = {"fp8_e4m3": {"store": "fp8_e4m3(head)"}}
GAPS = [
    (mode, form, forms[form], gap)
    for forms, gaps in (
        (WIDE, {"uniform": 0, "contrast": 8, "alone": 40}),
        (NARROW, {"uniform": 0, "contrast": 1, "alone": 10}),
        (E4M3, {"alone": 16}),
    )
    for form, (mode, gap) in itertools.product(forms, gaps.items())
]


@pytest.mark.parametrize(
    ("mode", "form", "more", "gap"), GAPS, ids=[f"{mode}-{form}" for mode, form, _, _ in GAPS]
)
def test_weights_are_those_of_the_mode(mode, form, more, gap):
    """All equal; or a half of the keys is lighter; or all but a pair."""
    keys, known = 20, Known(chains(20))
    at = side(known, keys=keys, **more)
    pairs = np.array(list(itertools.combinations(range(keys), 2)))
    KeyOrder(at, mode)(pairs)
    patterns = set()
    # The last probes of a contrast are what is left, and need not reach half of the keys.
    for call in known.calls[: 1 if mode == "contrast" else None]:
        log2 = (call["scores"] / math.log(2)).reshape(keys, -1).T
        for own in log2 - log2.amax(1, keepdim=True):
            light = own < -0.5
            patterns.add(tuple(light.tolist()))
            assert torch.allclose(own[light], torch.tensor(-float(gap)), rtol=1e-4)
            assert (own[~light] == 0).all()
    lights = {sum(pattern) for pattern in patterns}
    if mode == "uniform":
        assert lights == {0}
    elif mode == "alone":
        assert lights - {0} == {keys - 2}  # 0: a head that asks nothing
        assert len([pattern for pattern in patterns if any(pattern)]) == len(pairs)
    else:
        assert lights <= {9, 10, 11}
        assert len(patterns) == 4  # of each sequence and head another half


def test_equal_weights_need_no_other_softcap():
    for mode, noted in (("uniform", False), ("contrast", True)):
        at = side(Known(chains(5)), keys=5, softcap=0.5)
        KeyOrder(at, mode)
        assert bool(at.notes) == noted


def test_lone_weights_move_to_other_columns_with_a_turn():
    columns = []
    for turn in (0, 1):
        known = Known(chains(4, 8))
        at = side(known, keys=4, heads=(16, 2, 8))
        assert KeyOrder(at, "alone", turn=turn)(np.array([[0, 1], [2, 1]])).tolist() == [2, 3]
        columns.append({int(c) for c in (known.calls[-1]["v"] < 0).nonzero()[:, 3]})
    assert not columns[0] & columns[1]
    assert len(columns[0]) == len(columns[1]) == 2


def test_pairs_of_a_contrast_stay_with_the_weights_of_their_sequence_and_head():
    own = chains(30, 4)
    at = side(Known(own), keys=30, heads=(3, 3, 4), batch=3)
    for turn in (0, 1, 2):
        assert holds(KeyOrder(at, "contrast", turn=turn), own.keys)
