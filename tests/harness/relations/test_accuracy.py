"""A path against float64: limits, and the tokens that a verdict names."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from records import DECODE, NAN, NOTHING, PREFILL, changed, oracle, record
from torch import Tensor

from kvparity.core.lse import lse_rounded
from kvparity.relations.accuracy.measure import accuracy, against
from kvparity.relations.bits_and_limits import measures

LIMITS = {"max_abs_dlogp": 0.1, "approx_kl0": 1e-2, "clipfrac0": 0.0}


def test_accuracy_within_and_over_limits() -> None:
    found = accuracy(record(), oracle(0.05), LIMITS, column=0)
    assert found.outcome == "holds"
    assert found.tokens == 5
    assert found.max_abs_dlogp == pytest.approx(0.05, rel=1e-6)
    assert found.reason == (
        "max_abs_dlogp 0.05 of 0.1 allowed, approx_kl0 0.00127 of 0.01 allowed, "
        "clipfrac0 0 of 0 allowed"
    )
    over = accuracy(record(), oracle(0.2), LIMITS, column=0)
    assert over.outcome == "differs"
    assert over.reason == (
        "over the limit: max_abs_dlogp 0.2 of 0.1 allowed, approx_kl0 0.0214 of 0.01 allowed, "
        "clipfrac0 1 of 0 allowed"
    )
    assert over.clipfrac0 == 1.0
    # A measure equal to its limit is within.
    assert accuracy(record(), oracle(), {"clipfrac0": 0.0}, column=0).outcome == "holds"


def test_accuracy_looks_at_its_column_alone() -> None:
    wanted = oracle()
    wanted[:, 1] += 1
    assert accuracy(record(), wanted, LIMITS, column=0).outcome == "holds"
    assert accuracy(record(), wanted, LIMITS, column=1).outcome == "differs"
    assert accuracy(record(), wanted, {"max_abs": 0.5}, column=None).outcome == "differs"
    assert accuracy(record(), wanted, {"max_abs": 1.0}, column=None).outcome == "holds"


def test_a_token_at_its_limit_is_not_the_first_over_it() -> None:
    wanted = oracle()
    wanted[1, 0] -= 0.5
    wanted[3, 0] += 1.0
    found = accuracy(record(), wanted, {"max_abs_dlogp": 0.5}, column=0)
    assert (found.outcome, found.details.first.sequence) == ("differs", "w/1")


def test_an_oracle_that_is_not_finite_elsewhere_says_nothing_of_a_column() -> None:
    wanted = oracle(0.05)
    wanted[2, 1] = torch.inf
    assert accuracy(record(), wanted, LIMITS, column=0).outcome == "holds"
    assert accuracy(record(), wanted, LIMITS, column=1).outcome == "void"


@pytest.mark.parametrize("name", ["max_abs_dlogp", "approx_kl0"])
def test_a_measure_of_nan_is_over_every_limit(name: str) -> None:
    # A record that calls its NaN finite: what is left to catch it is the limit itself.
    lying = replace(record(values=changed(1, 0, NAN)), finite=torch.ones(5, dtype=torch.bool))
    found = accuracy(lying, oracle(), {name: 1e9}, column=0)
    assert (found.outcome, found.reason) == (
        "differs",
        f"over the limit: {name} nan of 1e+09 allowed",
    )
    assert measures(found)[name] == "nan"


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_an_oracle_that_is_not_finite_is_void(value: float) -> None:
    wanted = oracle()
    wanted[2, 0] = value
    found = accuracy(record(), wanted, {"clipfrac0": 1.0}, column=0)
    assert (found.outcome, found.reason) == ("void", "the float64 oracle gave NaN or Inf")
    assert accuracy(record(), wanted, LIMITS, column=1).outcome == "holds"


def test_nan_in_the_record_differs_whatever_the_limits() -> None:
    found = accuracy(record(values=changed(1, 0, NAN)), oracle(), {"max_abs_dlogp": 9}, column=0)
    assert (found.outcome, found.differing_tokens) == ("differs", 1)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"limits": {}}, "no limit is set"),
        ({"limits": {"max_abs": 1.0}}, "max_abs is not measured here"),
        ({"oracle": oracle()[:4]}, r"the oracle gave (4, 2) values for (5, 2) compared ones"),
        ({"candidate": record(**NOTHING)}, "no token was compared"),
        (
            {"candidate": record(DECODE, observed={"attention.prefill": 5})},
            "the path asks for single-query decode, but no decode was observed",
        ),
    ],
)
def test_accuracy_that_shows_nothing_is_void(arguments: dict[str, Any], reason: str) -> None:
    given: dict[str, Any] = {"candidate": record(), "oracle": oracle(), "limits": LIMITS}
    found = accuracy(**(given | arguments), column=0)
    assert (found.outcome, found.reason) == ("void", reason)


def test_a_path_is_the_rollout_before_the_oracle_and_its_k3_has_the_sign_of_rl() -> None:
    # Every token 0.5 likelier under the trainer, which is the oracle: e^0.5 - 1.5 = 0.149 each,
    # and e^-0.5 - 0.5 = 0.107 the other way round.
    for plan in (PREFILL, DECODE):
        found = accuracy(record(plan), oracle(0.5), {"approx_kl0": 0.12}, column=0)
        assert (found.outcome, found.rollout) == ("differs", "candidate")
        assert found.approx_kl0 == pytest.approx(math.exp(0.5) - 1.5)
        less = accuracy(record(plan), oracle(-0.5), {"approx_kl0": 0.12}, column=0)
        assert less.outcome == "holds"
    assert accuracy(record(), oracle(0.5), {"max_abs": 1}, column=None).rollout is None


def errors(*shifts: float) -> Tensor:
    """The oracle's values where the first column of each token is so far off."""
    wanted = oracle()
    wanted[:, 0] += torch.tensor(shifts, dtype=torch.float64)
    return wanted


def test_a_verdict_names_the_first_and_the_worst_token_also_where_it_holds() -> None:
    found = accuracy(record(), errors(0, 0.01, 0.02, 0.04, 0.03), {"max_abs_dlogp": 0.1}, column=0)
    assert found.outcome == "holds"
    assert found.details.limits == {"max_abs_dlogp": 0.1}
    first, worst = found.details.first, found.details.worst
    # A logprob at row 2 is that of the token at position 3.
    assert (first.sequence, first.position, first.token) == ("w/0", 3, 11)
    assert (worst.sequence, worst.position, worst.token) == ("w/1", 2, 20)
    assert (worst.value, worst.exact, worst.column) == (-3.0, -2.96, 0)
    assert worst.error == pytest.approx(0.04)


def test_where_tokens_are_over_the_limit_the_first_of_these_is_named() -> None:
    wanted = errors(0.01, 0, 0.2, 0.3, 0.2)
    found = accuracy(record(), wanted, {"max_abs_dlogp": 0.1}, column=0)
    assert found.outcome == "differs"
    spots = [getattr(found.details, name) for name in ("first", "worst")]
    assert [(s.sequence, s.position) for s in spots] == [("w/0", 4), ("w/1", 2)]
    # A limit of all tokens together is broken by no token alone: the first that is off.
    found = accuracy(record(), wanted, {"approx_kl0": 1e-9}, column=0)
    assert (found.details.first.sequence, found.details.first.position) == ("w/0", 2)


def test_a_row_of_a_pair_names_its_farthest_element() -> None:
    wanted = oracle()
    wanted[1, 0], wanted[1, 1], wanted[4, 1] = -2.25, -3.0, -4.75
    found = accuracy(record(), wanted, {"max_abs": 1.0}, column=None)
    first, worst = found.details.first, found.details.worst
    assert first == worst
    assert (first.sequence, first.position, first.token) == ("w/0", 2, None)
    assert (first.column, first.value, first.exact, first.error) == (1, -2.5, -3.0, 0.5)


def test_a_token_that_is_not_finite_is_named() -> None:
    found = accuracy(record(values=changed(3, 1, NAN)), oracle(), {"max_abs_dlogp": 9}, column=1)
    assert found.outcome == "differs"
    assert found.details.first == found.details.worst
    assert (found.details.worst.position, found.details.worst.value) == (2, "nan")


def test_exact_values_have_no_worst_token() -> None:
    found = accuracy(record(), oracle(), LIMITS, column=0)
    assert (found.details.first, found.details.worst) == (None, None)


def test_what_is_kept_does_not_grow_with_the_width_of_a_row() -> None:
    values = torch.linspace(-1, 1, 5 * 1000).view(5, 1000)
    wanted = values.double()
    wanted[2, 700] += 0.5
    kept = against(record(values=values), wanted, column=None)
    assert {tuple(t.shape) for t in kept.tensors().values()} == {(5,)}
    assert (int(kept.column[2]), float(kept.error[2])) == (700, 0.5)
    assert float(kept.exact[2] - kept.value[2]) == 0.5
    assert kept.index == record().index


def test_two_tokens_that_are_not_finite_are_two() -> None:
    values = changed(1, 0, NAN)
    values[4, 0] = torch.inf
    found = accuracy(record(values=values), oracle(), {"max_abs_dlogp": 9}, column=0)
    assert (found.outcome, found.differing_tokens, found.tokens) == ("differs", 2, 5)
    assert (found.details.first.position, found.details.first.token) == (3, 11)


def test_what_is_wrong_with_a_row_that_is_nobodys_differs_within_every_limit() -> None:
    found = accuracy(replace(record(), faults=("a row",)), oracle(), LIMITS, column=0)
    assert (found.outcome, found.reason) == ("differs", "a row")
    assert found.details.faults == ("a row",)


def test_an_oracle_of_fewer_columns_is_void() -> None:
    found = accuracy(record(), oracle()[:, :1], {"max_abs": 1.0}, column=0)
    assert (found.outcome, found.reason) == (
        "void", "the oracle gave (5, 1) values for (5, 2) compared ones",
    )  # fmt: skip


def test_the_first_row_of_a_pair_over_its_limit_is_named_and_not_the_first_that_is_off() -> None:
    wanted = oracle()
    wanted[0, 0], wanted[2, 1], wanted[3, 0] = -1.25, -1.5, -5.0
    found = accuracy(record(), wanted, {"max_abs": 0.5}, column=None)
    assert found.outcome == "differs"
    places = [(spot.sequence, spot.error) for spot in (found.details.first, found.details.worst)]
    assert places == [("w/0", 1.0), ("w/1", 2.0)]


def test_a_distance_below_float32_is_told_as_it_is() -> None:
    wanted = oracle()
    wanted[3, 0] += 2.0**-40
    found = accuracy(record(), wanted, LIMITS, column=0)
    assert found.max_abs_dlogp == found.details.worst.error == 2.0**-40
    wanted[3, 0] += 1 + 2.0**-40
    assert accuracy(record(), wanted, LIMITS, column=0).details.worst.error == 1 + 2.0**-39


UNIT = 2.0**-24
LSE: dict[str, tuple[float, float, float]] = {
    "exact": (1000.0, 1000.0, 0.0),
    "half of float32's rounding": (1000.0, 1000 * (1 + 4 * UNIT), 0.0),
    "the same below": (1000.0, 1000 * (1 - 4 * UNIT), 0.0),
    "more than rounding": (1000.0, 1000 * (1 + 24 * UNIT), 16 * UNIT * 1000),
    "more below": (1000.0, 1000 * (1 - 24 * UNIT), 16 * UNIT * 1000),
    "of a negative one": (-1000.0, -1000 * (1 + 24 * UNIT), 16 * UNIT * 1000),
    "far": (1.0, 3.0, 2.0),
}


@pytest.mark.parametrize("name", LSE)
def test_of_an_lse_its_rounding_is_not_counted_and_the_rest_is(name: str) -> None:
    found, exact, counted = LSE[name]
    values = torch.tensor([[found, found]])
    wanted = torch.tensor([[exact, exact]], dtype=torch.float64)
    rounded = lse_rounded(values, wanted, 1)
    assert rounded[0, 0] == exact  # an element of O is counted in whole
    assert float((values.double() - rounded)[0, 1].abs()) == pytest.approx(counted, rel=1e-3)


def test_an_lse_that_is_nan_is_off_by_more_than_rounding() -> None:
    values = torch.tensor([[0.0, torch.nan]])
    wanted = torch.tensor([[0.0, 5.0]], dtype=torch.float64)
    assert torch.equal(lse_rounded(values, wanted, 1), wanted)
