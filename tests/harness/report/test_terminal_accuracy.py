"""The terminal report of accuracy: what was measured beside its limit, and the tokens."""

from __future__ import annotations

from typing import Any

from run_documents import case, rendered, report

Document = dict[str, Any]


def spot(position: int, error: float, **changes: Any) -> Document:
    return {
        "sequence": "long/0",
        "position": position,
        "token": 104,
        "column": 0,
        "value": -2.5,
        "exact": -2.5 - error,
        "error": error,
    } | changes


def measured(largest: float | str, limit: float = 0.02, **changes: Any) -> Document:
    """An accuracy case of a kernel pair."""
    spots = [spot(at, error, token=None, column=311) for at, error in ((3, 0.001), (9, 0.0019))]
    found = {"limits": {"max_abs": limit}, "first": spots[0], "worst": spots[1]}
    return case(
        relation="accuracy", reference=None, temperature=None, max_ulp=None, max_abs=largest,
        max_abs_dlogp=None, approx_kl0=None, clipfrac0=None, accuracy=found,
    ) | changes  # fmt: skip


def lines(*cases: Document, verdict: str = "holds") -> list[str]:
    whole = report(verdict, *cases)
    whole["checks"][0]["relation"] = "accuracy"
    return rendered(whole).splitlines()


def test_what_holds_shows_how_near_it_came_and_where() -> None:
    shown = lines(measured(0.001), measured(0.00191, id="c005", path="batched"), measured(0.0018))
    at = shown.index(
        "    nearest its limit: c005 (batched over long, bfloat16): max_abs 0.00191 of 0.02 allowed"
    )
    assert shown[at + 1 : at + 3] == [
        "      first token that is off: sequence long/0, position 3, column 311: -2.5, "
        "float64 has -2.501, off by 0.001",
        "      worst token: sequence long/0, position 9, column 311: -2.5, "
        "float64 has -2.5019, off by 0.0019",
    ]
    assert sum("nearest" in line for line in shown) == 1


def test_each_format_is_held_against_its_own_limits() -> None:
    small = measured(1e-6, 1e-5, id="c000", dtype="float32")
    smaller = measured(0.0005, 0.02, id="c001")  # more than the other, and less of its limit
    shown = [line for line in lines(small, smaller) if "nearest" in line]
    assert [line.split("allowed")[0].split(": ")[-1] for line in shown] == [
        "max_abs 1e-06 of 1e-05 ",
        "max_abs 0.0005 of 0.02 ",
    ]
    tempered = measured(0.0, temperature=0.7, max_abs_dlogp=0.05) | {"max_abs": None}
    tempered["accuracy"] = {
        "limits": {"max_abs_dlogp": 0.1, "clipfrac0": 0.0},
        "first": spot(3, 0.05),
        "worst": spot(3, 0.05),
    }
    tempered["clipfrac0"] = 0.0
    shown = lines(tempered)
    assert any("temperature 0.7): max_abs_dlogp 0.05 of 0.1 allowed, clip" in x for x in shown)
    assert any(
        x.startswith("      first and worst token: sequence long/0, position 3, token 104: -2.5,")
        for x in shown
    )


def test_a_broken_limit_names_the_token_that_broke_it_first() -> None:
    bad = measured(0.5, verdict="differs", reason="over the limit: max_abs 0.5 of 0.02 allowed")
    shown = lines(measured(0.001), bad, verdict="differs")
    assert any("first token over the limit: sequence long/0, position 3," in x for x in shown)
    unmeasured = measured("nan", verdict="differs", max_abs=None, reason="NaN or Inf")
    assert any("first token over the limit" in x for x in lines(unmeasured, verdict="differs"))
    lying = lines(measured("nan", verdict="differs", id="c008"), measured(9.0), verdict="differs")
    assert any("nearest its limit: c008" in line for line in lying)


def test_what_is_exact_says_so() -> None:
    exact = measured(0.0)
    exact["accuracy"] |= {"first": None, "worst": None}
    assert "      every token is exact" in lines(exact)
