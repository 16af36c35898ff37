from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from records import (
    DECODE,
    INDEX,
    MINUS,
    PLUS,
    PREFILL,
    VALUES,
    changed,
    record,
)
from torch import Tensor

from kvparity.plan.schedule import Layout
from kvparity.relations.bits_and_limits import invariance, measures, same_bits


def up(x: Tensor, steps: int) -> Tensor:
    """``steps`` floats away from zero, for a float32 that is not 0."""
    return (x.view(torch.int32) + steps).view(torch.float32)


def test_equal_bits_hold() -> None:
    found = invariance(record(), record(DECODE), column=0)
    assert (found.outcome, found.reason) == ("holds", "every bit is equal")
    assert (found.tokens, found.differing_tokens, found.differing_rows) == (5, 0, 0)
    assert (found.max_ulp, found.max_abs_dlogp, found.approx_kl0, found.clipfrac0) == (0, 0, 0, 0)
    assert found.max_abs is None
    assert found.first_divergence is None


def test_a_difference_is_reported_in_full() -> None:
    values = VALUES.clone()
    values[1, 0] = up(VALUES[1, 0], 3)
    values[4, 0] = up(VALUES[4, 0], 1)
    other = record(DECODE, values=values, digests=(1, -1, 3, -4, 6))
    found = invariance(record(), other, column=0)
    assert (found.outcome, found.reason) == ("differs", "bits differ")
    assert (found.tokens, found.differing_tokens, found.differing_rows) == (5, 2, 2)
    assert found.max_ulp == 3
    assert found.max_abs_dlogp == float(VALUES[1, 0].double() - values[1, 0].double())
    assert found.clipfrac0 == 0.0
    assert found.approx_kl0 is not None
    assert 0 < found.approx_kl0 < 1e-12
    first = found.first_divergence
    assert first is not None
    assert (first.sequence, first.position, first.token, first.column) == ("w/0", 3, 11, 0)
    assert (first.reference, first.candidate) == (-2.0, float(values[1, 0]))
    assert (first.reference_bits, first.candidate_bits) == ("0xc0000000", "0xc0000003")
    assert first.ulps == 3
    assert first.reference_digest == "0x0000000000000002"
    assert first.candidate_digest == "0xffffffffffffffff"


def test_columns_are_compared_one_by_one() -> None:
    other = record(DECODE, values=changed(3, 1, up(VALUES[3, 1], 1)))
    assert invariance(record(), other, column=0).outcome == "holds"
    found = invariance(record(), other, column=1)
    assert (found.outcome, found.differing_tokens, found.differing_rows) == ("differs", 1, 0)
    assert found.first_divergence is not None
    assert (found.first_divergence.column, found.first_divergence.sequence) == (1, "w/1")


def test_the_sign_of_zero_is_a_bit() -> None:
    other = record(DECODE, values=changed(2, 0, PLUS))
    found = invariance(record(), other, column=0)
    assert (found.outcome, found.differing_tokens, found.max_ulp) == ("differs", 1, 1)
    assert found.max_abs_dlogp == 0.0
    assert found.first_divergence is not None
    assert found.first_divergence.reference_bits == "0x80000000"
    assert found.first_divergence.candidate_bits == "0x00000000"
    assert invariance(record(), record(DECODE, values=changed(2, 0, MINUS)), column=0).outcome == (
        "holds"
    )


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_what_is_not_finite_differs_though_its_bits_are_equal(value: float) -> None:
    values = changed(1, 0, value)
    found = invariance(record(values=values), record(DECODE, values=values), column=0)
    assert (found.outcome, found.reason) == ("differs", "NaN or Inf in an active token")
    assert (found.differing_tokens, found.differing_rows) == (1, 1)
    assert found.max_ulp == 0  # of the finite tokens
    assert found.first_divergence is not None
    assert found.first_divergence.ulps is None
    assert found.first_divergence.reference == str(value)
    assert json.loads(json.dumps(found.first_divergence.document()))["reference"] == str(value)


def test_the_column_that_is_no_finite_number_is_shown() -> None:
    """Of a row of a pair: equal bits before it say nothing, and neither does what differs there."""
    values = changed(1, 1, torch.nan)
    for other in (values, torch.where(values.isnan(), values, values + 1)):
        found = invariance(record(values=values), record(DECODE, values=other), column=None)
        first = found.first_divergence
        assert first is not None
        where = (first.sequence, first.column, first.reference, first.candidate)
        assert (found.reason, where[2:]) == ("NaN or Inf in an active token", ("nan", "nan"))
        assert where[:2] == ("w/0", 1)


def test_nan_in_all_tokens_leaves_nothing_to_measure() -> None:
    values = torch.full_like(VALUES, torch.nan)
    found = invariance(record(values=values), record(DECODE, values=values), column=0)
    assert (found.outcome, found.max_ulp, found.max_abs_dlogp) == ("differs", None, None)
    assert found.differing_tokens == 5


def test_rows_differ_where_only_their_digests_do() -> None:
    other = record(DECODE, digests=(1, 2, 3, -4, 6))
    found = invariance(record(), other, column=0)
    assert (found.outcome, found.differing_tokens, found.differing_rows) == ("differs", 0, 1)
    first = found.first_divergence
    assert first is not None
    assert (first.sequence, first.position, first.ulps) == ("w/1", 3, 0)
    assert first.reference_bits == first.candidate_bits
    assert (first.reference_digest, first.candidate_digest) == (
        "0x0000000000000005",
        "0x0000000000000006",
    )


def test_other_token_ids_differ_though_their_values_are_equal() -> None:
    values = changed(0, 0, -9.0)  # an earlier difference does not hide what is wrong
    other = record(DECODE, targets=(10, 11, 99, 20, 21), values=values)
    found = invariance(record(), other, column=0)
    assert (found.outcome, found.reason) == ("differs", "the two sides scored different token ids")
    assert found.differing_tokens == 2
    assert found.first_divergence is not None
    assert (found.first_divergence.position, found.first_divergence.token) == (4, 99)


LOWER = changed(0, 0, -1.21)
"""Where VALUES have -1: e^0.21 = 1.23 is outside of the clip range, e^-0.21 = 0.81 is not."""


def test_the_rollout_is_the_side_that_decodes() -> None:
    # The trainer is the other one, and the ratio is trainer / rollout: 1.23 in the first.
    drawn = invariance(record(), record(DECODE, values=LOWER), column=0)
    assert (drawn.rollout, drawn.clipfrac0) == ("candidate", 0.2)
    again = invariance(record(DECODE), record(values=LOWER), column=0)
    assert (again.rollout, again.clipfrac0) == ("reference", 0.0)


def test_where_both_decode_or_neither_the_roles_are_told() -> None:
    other = replace(DECODE, layout=Layout(page=16))
    both = invariance(record(DECODE), record(other, values=LOWER), column=0)
    assert (both.rollout, both.clipfrac0) == ("reference", 0.0)
    neither = invariance(
        record(), record(replace(PREFILL, layout=Layout(page=16)), values=LOWER), column=0
    )
    assert (neither.rollout, neither.clipfrac0) == ("candidate", 0.2)
    generated = replace(DECODE, generate=True)
    assert invariance(record(generated), record(values=LOWER), column=0).rollout == "reference"
    rows = invariance(record(), record(DECODE, values=LOWER), column=None)
    assert (rows.rollout, rows.clipfrac0) == (None, None)  # no logprob, no roles


def test_attention_rows_are_compared_whole() -> None:
    values = changed(3, 1, -3.25)
    found = invariance(record(), record(DECODE, values=values), column=None)
    assert (found.outcome, found.differing_tokens) == ("differs", 1)
    assert (found.max_abs, found.max_abs_dlogp) == (0.25, None)
    first = found.first_divergence
    assert first is not None
    assert (first.position, first.token, first.column) == (1, None, 1)
    assert invariance(record(), record(DECODE), column=None).max_abs == 0.0


def test_measures_beyond_json_are_given_by_name() -> None:
    other = record(DECODE, values=changed(0, 0, -1000.0))
    found = invariance(record(values=changed(0, 0, -1.0)), other, column=0)
    assert found.approx_kl0 == float("inf")
    assert measures(found)["approx_kl0"] == "inf"


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"digests": (1, 2, 3, -4, 6)}, False),
        ({"values": changed(4, 1, up(VALUES[4, 1], 1))}, False),
        ({"values": changed(2, 0, PLUS)}, False),
        ({"index": ((0, 0), *INDEX[1:])}, False),
    ],
    ids=["nothing", "a row", "a value", "a sign of zero", "a place"],
)
def test_a_path_repeats_itself_if_every_value_row_and_place_is_there_again(
    change: dict[str, Any], same: bool
) -> None:
    assert same_bits(record(DECODE), record(DECODE, **change)) is same


LAST = torch.tensor([True, True, True, True, False])


@pytest.mark.parametrize("side", [0, 1], ids=["reference", "path"])
@pytest.mark.parametrize("fault", ["not finite", "of a row that is nobody's"])
def test_what_one_side_alone_tells_makes_both_differ(fault: str, side: int) -> None:
    """Every compared bit is equal: a NaN in a row that no value shows, and a row beside them."""
    more: dict[str, Any] = {"finite": LAST} if fault == "not finite" else {"faults": (fault,)}
    pair = [record(), record(DECODE)]
    assert invariance(*pair, column=0).outcome == "holds"
    pair[side] = replace(pair[side], **more)
    found = invariance(*pair, column=0)
    reason = "NaN or Inf in an active token" if "finite" in more else fault
    assert (found.outcome, found.reason) == ("differs", reason)
    assert found.differing_tokens == found.differing_rows == ("finite" in more)


@pytest.mark.parametrize("side", [0, 1], ids=["reference", "path"])
def test_a_nan_is_counted_and_measures_are_those_of_the_other_tokens(side: int) -> None:
    odd = changed(1, 0, torch.nan)
    odd[3, 0] = torch.nan
    off = changed(4, 0, up(VALUES[4, 0], 2))
    off[:4] = odd[:4] if side else VALUES[:4]
    pair = record(values=VALUES if side else odd), record(DECODE, values=off)
    found = invariance(*pair, column=0)
    assert (found.differing_tokens, found.differing_rows, found.max_ulp) == (3, 2, 2)
    assert found.max_abs_dlogp == abs(float(off[4, 0].double() - VALUES[4, 0].double()))
    first = found.first_divergence
    assert first is not None
    assert (first.sequence, first.position, first.token) == ("w/0", 3, 11)


def test_the_first_of_several_is_told() -> None:
    tokens = invariance(record(), record(DECODE, targets=(10, 99, 12, 98, 21)), column=0)
    assert tokens.first_divergence is not None
    assert (tokens.first_divergence.sequence, tokens.first_divergence.token) == ("w/0", 99)
    both = changed(3, 0, -9.0)
    both[3, 1] = -9.0
    rows = invariance(record(), record(DECODE, values=both), column=None)
    assert rows.first_divergence is not None
    assert rows.first_divergence.column == 0


def test_a_place_that_is_another_at_the_end_is_no_pair() -> None:
    other = record(DECODE, index=(*INDEX[:4], (1, 3)))
    found = invariance(record(), other, column=0)
    assert (found.outcome, found.reason) == ("void", "the two sides hold different positions")


def test_the_largest_distance_is_not_rounded() -> None:
    found = invariance(record(), record(DECODE, values=changed(2, 0, 2.0**-30 + 3)), column=None)
    exact = float(changed(2, 0, 2.0**-30 + 3)[2, 0].double())
    near = record(DECODE, values=changed(1, 1, 2.0**-20))
    assert found.max_abs == exact
    assert invariance(record(), near, column=None).max_abs == 2.5 + 2.0**-20
    tiny = record(DECODE, values=changed(4, 1, 2.0**-25))
    assert invariance(record(), tiny, column=None).max_abs == 4.5 + 2.0**-25  # no float32
