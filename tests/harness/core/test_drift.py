from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import pytest
import torch

from kvparity.core.drift import Drift, drift


def sides(rollout: Sequence[float], trainer: Sequence[float]) -> Drift:
    x, y = (torch.tensor(side, dtype=torch.float64) for side in (rollout, trainer))
    return drift(rollout=x, trainer=y)


def test_the_formulas_by_hand() -> None:
    rollout = [-1.0, -2.25, -2.5, -0.4]
    trainer = [-1.0, -2.0, -3.0, -0.5]
    d = [t - r for r, t in zip(rollout, trainer, strict=True)]  # 0, 0.25, -0.5, -0.1
    found = sides(rollout, trainer)
    assert found.max_abs_dlogp == 0.5
    # Both sides are float64 with a handful of operations.
    wanted = sum(math.exp(x) - 1 - x for x in d) / 4
    assert math.isclose(found.approx_kl0, wanted, rel_tol=1e-6)
    assert found.clipfrac0 == 0.5  # exp(0.25) = 1.28 and exp(-0.5) = 0.61


def test_a_rare_token_that_is_trained_as_likely_weighs_more_than_the_other_way_round() -> None:
    """As RL libraries have it: k3 of r = p_trainer / p_rollout, which grows without bound with r.

    One token drawn at 1 % that the trainer gives 50 %: r = 50, k3 = 49 - ln 50 = 45.09. The other
    way round r = 1/50, and k3 = -49/50 + ln 50 = 2.93.
    """
    rare, likely = [math.log(0.01)], [math.log(0.5)]
    assert math.isclose(sides(rare, likely).approx_kl0, 49 - math.log(50), rel_tol=1e-9)
    assert math.isclose(sides(likely, rare).approx_kl0, math.log(50) - 49 / 50, rel_tol=1e-9)


def test_the_ratio_is_that_of_the_trainer_to_the_rollout() -> None:
    low, high = [-2.0], [-1.79]  # exp(0.21) = 1.23 is clipped, exp(-0.21) = 0.81 is not
    assert sides(low, high).clipfrac0 == 1.0
    assert sides(high, low).clipfrac0 == 0.0


@pytest.mark.parametrize(
    ("ratio", "share"),
    [(0.8 - 1e-9, 1.0), (0.8 + 1e-9, 0.0), (1.2 - 1e-9, 0.0), (1.2 + 1e-9, 1.0), (math.inf, 1.0)],
)
def test_a_ratio_is_clipped_from_a_fifth_on(ratio: float, share: float) -> None:
    """The clip range of PPO; a ratio that float32 cannot tell from its end is still told."""
    assert sides([-1.0], [-1.0 + math.log(ratio)]).clipfrac0 == share


@pytest.mark.parametrize("end", [0.8, 1.2])
def test_the_ends_of_the_clip_range_are_inside(end: float) -> None:
    near = torch.full((64,), math.log(end), dtype=torch.float64)
    for i in range(1, 64):
        near[i] = torch.nextafter(near[i - 1], near[i - 1] + 1)
    near -= near[32] - near[0]  # on both sides of the logarithm
    exact = near[torch.exp(near) == end]
    assert len(exact)
    assert drift(rollout=torch.zeros_like(exact), trainer=exact).clipfrac0 == 0.0


def test_equal_sides_have_no_drift_and_small_ones_are_not_lost() -> None:
    x = torch.linspace(-9, -0.1, 50).tolist()
    assert sides(x, x) == Drift(0.0, 0.0, 0.0)
    # exp(d) - 1 - d in plain float64 would be pure rounding noise here; d^2 / 2 is 5e-17.
    moved = sides([0.0], [1e-8])
    assert 4e-17 < moved.approx_kl0 < 6e-17


def test_logprobs_are_subtracted_before_anything_is_rounded() -> None:
    """Float32 numbers that are far apart: their difference in float32 is another number."""
    rollout, trainer = torch.tensor([-0.1, -17.3]), torch.tensor([-20.0, -0.7])
    found = drift(rollout=rollout, trainer=trainer)
    exact = [
        Fraction(t) - Fraction(r) for r, t in zip(rollout.tolist(), trainer.tolist(), strict=True)
    ]
    assert all(float(each) != float(torch.tensor(float(each))) for each in exact)
    assert found.max_abs_dlogp == float(max(map(abs, exact)))
    k3 = [math.expm1(each) - float(each) for each in exact]
    assert math.isclose(found.approx_kl0, sum(k3) / 2, rel_tol=1e-12)


def test_nan_is_not_swallowed() -> None:
    found = sides([-1.0, -1.0], [-1.0, math.nan])
    assert math.isnan(found.max_abs_dlogp)
    assert math.isnan(found.approx_kl0)
    assert found.clipfrac0 == 0.5
