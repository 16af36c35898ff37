"""The page of long contexts: how fast time and memory grow; it is the page of its JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from long_contexts_page import LongContexts, exponent, page

RESULTS = Path(__file__).parents[2] / "docs/results"
FOUND: LongContexts = json.loads((RESULTS / "long-contexts.json").read_text())


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_exponent_of_a_power_is_the_power(power: float) -> None:
    points = [(x, 3 * x**power) for x in (1.0, 4.0, 7.0)]
    assert exponent(points) == pytest.approx(power)


def test_the_exponent_is_of_the_two_points_with_the_largest_x() -> None:
    points = [(64.0, 640.0), (1.0, 9.0), (16.0, 40.0)]  # between 16 and 64: 16 times for 4
    assert exponent(points) == pytest.approx(2)


@pytest.mark.parametrize("points", [[], [(2.0, 5.0)], [(2.0, 5.0), (2.0, 6.0)]])
def test_less_than_two_points_have_no_exponent(points: list[tuple[float, float]]) -> None:
    assert exponent(points) is None


def test_the_page_is_that_of_the_numbers_beside_it() -> None:
    assert page(FOUND) == (RESULTS / "long-contexts.md").read_text()


def test_what_is_called_linear_is_not_above_it() -> None:
    """Of the kinds that the page calls linear, time and memory from the first point to the last."""
    linear = ("pair", "window", "batch", "cases")
    for kind in linear:
        points = [p for p in FOUND["points"] if p["kind"] == kind and not p["whole"]]
        by = [(p["number"] * p["keys"], p["cpu_seconds"], p["peak_mib"]) for p in points]
        (x, seconds, mib), (last, more_seconds, more_mib) = min(by), max(by)
        assert more_seconds / seconds <= last / x, kind
        assert more_mib / mib <= last / x, kind
