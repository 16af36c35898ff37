"""What differences of logprobs would do to training. Prints its answer as JSON.

    python drift_numbers.py ROLLOUT.safetensors TRAINER.safetensors

Each file: ``logprobs`` float32 or float64 ``[tokens]``. With d = trainer - rollout, exact:
``max_abs_dlogp`` is the largest |d|, ``approx_kl0`` the mean of e^d - 1 - d, ``clipfrac0`` the
share of tokens with e^d outside 0.8 .. 1.2. Computed with 60 decimal digits and rounded once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from decimal import Decimal, localcontext
from typing import Any

from safetensors.numpy import load_file


def answer(rollout: Iterable[float], trainer: Iterable[float]) -> dict[str, Any]:
    """The three numbers; ``mean_abs``: the mean of |d|, by which a float64 sum may be judged."""
    with localcontext() as context:
        context.prec = 60
        pairs = zip(rollout, trainer, strict=True)
        d = [Decimal(float(t)) - Decimal(float(r)) for r, t in pairs]  # floats are exact decimals
        ratios = [each.exp() for each in d]
        low, high = Decimal("0.8"), Decimal("1.2")
        outside = sum(not low <= ratio <= high for ratio in ratios)
        excess = sum((ratio - 1 - each for ratio, each in zip(ratios, d, strict=True)), Decimal(0))
        return {
            "tokens": len(d),
            "max_abs_dlogp": float(max(abs(each) for each in d)),
            "approx_kl0": float(excess / len(d)),
            "clipfrac0": outside / len(d),
            "mean_abs": float(sum((abs(each) for each in d), Decimal(0)) / len(d)),
        }


if __name__ == "__main__":
    sides = [load_file(name)["logprobs"].tolist() for name in sys.argv[1:3]]
    print(json.dumps(answer(*sides)))
