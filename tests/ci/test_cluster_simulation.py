"""The simulation of a cluster says what its figures say, and is near the small real run."""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).parents[2] / "docs/results"
FACTOR = 2.0
"""What the page says that a simulated time is worth, either way."""


def test_the_page_has_the_figures_and_a_real_run_is_within_the_stated_factor() -> None:
    found = json.loads((RESULTS / "cluster-simulation.json").read_text())
    page = (RESULTS / "cluster-simulation.md").read_text()
    small = found["small"]
    assert 1 / FACTOR < small["real_over_simulated"] < FACTOR
    assert f"a factor of {small['real_over_simulated']:.2f}" in page
    assert "a factor of two either way" in page
    for run in found["large"]:
        assert (run["cases"], run["machines"], run["verdict"]) == (10000, 256, "holds")
        row = f"| {run['unit_s']:g} | {run['wall_s']:,.0f} | {run['driver_cpu_s']:.1f} | "
        assert row in page
