"""Which limits see too little, by what controls measured: the rule alone."""

from __future__ import annotations

from typing import Any

import pytest
from run_documents import unchecked, unchecked_controls

from kvparity.plan.results import CaseLine
from kvparity.relations import blind as rules
from kvparity.relations.blind import separating


def row(
    measured: float, limit: float = 0.02, rounding: float = 0.002, **more: Any
) -> dict[str, Any]:
    found = {
        "check": "near", "dtype": "bfloat16", "limit": limit, "measured": measured,
        "rounding": rounding, "seen": measured > limit,
    }  # fmt: skip
    return found | more


def blind(check: str, relation: str, controls: list[Any], results: list[Any]) -> str | None:
    cases = unchecked(CaseLine, *results)
    return rules.blind(check, relation, unchecked_controls(*controls), cases)


def seen_instead(check: str, relation: str, controls: list[Any]) -> list[str]:
    return rules.seen_instead(check, relation, unchecked_controls(*controls))


def apart(missed: dict[str, Any], names: list[str], results: list[Any]) -> str:
    return rules.apart(unchecked_controls(missed)[0], names, unchecked(CaseLine, *results))


def control(*reach: dict[str, Any], **more: Any) -> dict[str, Any]:
    caught = all(each["seen"] for each in reach)
    return {"name": "fault", "relation": "accuracy", "caught": caught, "reach": [*reach]} | more


PAIR = [{"dtype": "bfloat16", "max_abs": 0.0031}, {"dtype": "float32", "max_abs": 9.0}]


def test_a_fault_within_the_limit_is_told_with_the_limit_that_sees_it() -> None:
    words = blind("near", "accuracy", [control(row(0.0114))], PAIR)
    assert words == (
        "its limits cannot see fault, which measures max_abs 0.0114 of 0.02 allowed in bfloat16; "
        "exact rows rounded to bfloat16 measure 0.002, this pair at most 0.0031: "
        "a limit of 0.004 tells them apart"
    )
    assert blind("near", "accuracy", [control(row(0.021))], PAIR) is None


def test_each_check_answers_for_its_own_limits() -> None:
    found = [control(row(0.5), row(0.5, limit=1.0, check="far"))]
    assert blind("near", "accuracy", found, PAIR) is None
    assert blind("far", "accuracy", found, PAIR) is not None


def test_every_format_must_see_it_where_one_of_its_limits_could() -> None:
    seen = row(0.01, limit=1e-5, rounding=1e-7, dtype="float32")
    assert "in bfloat16" in str(blind("near", "accuracy", [control(seen, row(0.01))], PAIR))
    # Rounding alone is as large: no limit could, and the other format stands for both.
    faint = [control(seen, row(0.0035))]
    assert blind("near", "accuracy", faint, PAIR) is None
    assert seen_instead("near", "accuracy", faint) == ["fault by float32"]
    alone = blind("near", "accuracy", [control(row(0.0035))], PAIR)
    assert str(alone).endswith("no limit tells them apart in bfloat16; ask for float32 too")


@pytest.mark.parametrize("caught", [True, False])
def test_another_relation_counts_only_if_it_caught_it(caught: bool) -> None:
    live = {"name": "fault", "relation": "liveness", "caught": caught, "reach": []}
    found = [control(row(0.0114)), live]
    assert (blind("near", "accuracy", found, PAIR) is None) == caught
    assert seen_instead("near", "accuracy", found) == (["fault by liveness"] if caught else [])


def test_a_fault_is_excused_by_its_own_name_alone_and_every_fault_answers() -> None:
    """What another relation caught of another fault says nothing of this one, in any order."""
    other = {"name": "other", "relation": "liveness", "caught": True, "reach": []}
    seen, unseen = control(row(0.021), name="seen"), control(row(0.0114))
    for found in ([seen, other, unseen], [unseen, other, seen]):
        assert "cannot see fault," in str(blind("near", "accuracy", found, PAIR))
        assert seen_instead("near", "accuracy", found) == []


def test_a_fault_that_its_own_relation_caught_elsewhere_is_not_excused_here() -> None:
    caught = control(row(0.5, limit=0.1, check="far"), row(0.0114), caught=True)
    assert blind("far", "accuracy", [caught], PAIR) is None
    assert blind("near", "accuracy", [caught], PAIR) is not None


def test_faults_of_another_relation_answer_for_their_own() -> None:
    other = control(row(0.0114), relation="trace")
    assert blind("near", "accuracy", [other], PAIR) is None
    assert blind("near", "trace", [other], PAIR) is not None
    assert seen_instead("near", "accuracy", [other, control(row(0.5))]) == []
    assert seen_instead("near", "accuracy", [{"name": "fault", "relation": "accuracy"}]) == []


def test_a_pair_that_measured_nothing_in_the_format_is_not_told() -> None:
    found = [control(row(0.0114))]
    for nothing in ([{"dtype": "bfloat16", "max_abs": None}], [{"dtype": "bfloat16"}], PAIR[1:]):
        assert "measure 0.002: a limit of" in str(blind("near", "accuracy", found, nothing))


def test_the_pair_is_told_by_the_most_that_it_measures_in_the_format() -> None:
    more = [*PAIR, {"dtype": "bfloat16", "max_abs": 0.0029}, {"dtype": "bfloat16"}]
    assert "this pair at most 0.0031:" in str(
        blind("near", "accuracy", [control(row(0.0114))], more)
    )


@pytest.mark.parametrize(
    ("measured", "rounding", "wanted"),
    [
        (0.0114, 0.00389, 0.006),
        (0.0066, 0.0019, 0.003),
        (0.5, 1e-4, 7e-3),
        (0.5, 0.0, 5e-4),
        (0.0041, 0.002, 0.0028),
        (0.0066, 0.00565, None),
        (0.004, 0.002, None),
        (4.4e-3, 1e-9, 4e-6),
        (1e-6, 1e-6 / 2.1, 6e-7),
    ],
)
def test_a_limit_lies_between_rounding_and_the_fault(
    measured: float, rounding: float, wanted: float | None
) -> None:
    found = separating(measured, rounding)
    assert found == wanted
    assert found is None or rounding < found < measured


def test_a_missed_control_is_told_with_what_it_measures() -> None:
    missed = {"name": "wrong-input", "measured": {"max_abs_dlogp": 0.08, "clipfrac0": 0.0}}
    cases = [{"max_abs_dlogp": 0.003}, {"max_abs_dlogp": 0.001}, {"max_abs_dlogp": None}]
    words = apart(missed, ["approx_kl0", "max_abs_dlogp"], cases)
    assert words == (
        "; it measures max_abs_dlogp 0.08, the subject at most 0.003: a limit of 0.01 would see it"
    )
    noisy = apart(missed, ["max_abs_dlogp"], [{"max_abs_dlogp": 0.07}])
    assert noisy.endswith("the subject at most 0.07: no limit tells them apart")
    assert apart(missed, ["approx_kl0"], cases) == apart(missed, ["max_abs_dlogp"], []) == ""


def test_of_a_missed_control_nothing_is_said_that_was_not_measured_on_both_sides() -> None:
    missed = {"name": "wrong-input", "measured": {"max_abs_dlogp": 0.08}}
    for names, cases in (
        (["max_abs_dlogp"], []),
        (["max_abs_dlogp"], [{"max_abs_dlogp": None}]),
        (["approx_kl0"], [{"approx_kl0": 0.1}]),
        ([], [{"max_abs_dlogp": 0.1}]),
    ):
        assert apart(missed, names, cases) == ""
    assert apart({"name": "wrong-input"}, ["max_abs_dlogp"], [{"max_abs_dlogp": 0.1}]) == ""
