from __future__ import annotations

import math

import torch

from kvparity.drift import drift


def test_the_formulas_by_hand() -> None:
    rollout = [-1.0, -2.0, -3.0, -0.5]
    rescore = [-1.0, -2.25, -2.5, -0.4]
    d = [a - b for a, b in zip(rollout, rescore, strict=True)]  # 0, 0.25, -0.5, -0.1
    found = drift(torch.tensor(rollout).double(), torch.tensor(rescore).double())
    assert found.max_abs_dlogp == 0.5
    # Both sides are float64 with a handful of operations.
    wanted = sum(math.exp(x) - 1 - x for x in d) / 4
    assert math.isclose(found.approx_kl0, wanted, rel_tol=1e-6)
    assert found.clipfrac0 == 0.5  # exp(0.25) = 1.28 and exp(-0.5) = 0.61


def test_d_is_rollout_less_rescore() -> None:
    low, high = torch.tensor([-2.0]), torch.tensor([-1.79])  # exp(0.21) = 1.23, exp(-0.21) = 0.81
    assert drift(high, low).clipfrac0 == 1.0
    assert drift(low, high).clipfrac0 == 0.0
    assert drift(high, low).approx_kl0 > drift(low, high).approx_kl0


def test_equal_sides_have_no_drift_and_small_ones_are_not_lost() -> None:
    x = torch.linspace(-9, -0.1, 50)
    assert drift(x, x.clone()) == drift(torch.zeros(3), torch.zeros(3))
    assert drift(x, x.clone()).max_abs_dlogp == 0.0
    # exp(d) - 1 - d in plain float64 would be pure rounding noise here; d^2 / 2 is 5e-17.
    moved = drift(torch.zeros(1), torch.tensor([1e-8], dtype=torch.float64))
    assert 4e-17 < moved.approx_kl0 < 6e-17


def test_nan_is_not_swallowed() -> None:
    found = drift(torch.tensor([-1.0, -1.0]), torch.tensor([-1.0, math.nan]))
    assert math.isnan(found.max_abs_dlogp)
    assert math.isnan(found.approx_kl0)
    assert found.clipfrac0 == 0.5
