"""How much of an LSE is float32's rounding, whoever computes it."""

from __future__ import annotations

import torch
from torch import Tensor

LSE_ROUNDING = 8 * 2.0**-24
"""Of an LSE so much of its size is rounding, and not counted: half units in float32's last place of
a factor, its product with the score, the change from base 2, the logarithm and the sum. Where the
scores are thousands, that is more than any limit that means something elsewhere."""


def lse_rounded(found: Tensor, exact: Tensor, first: int) -> Tensor:
    """``exact`` with its LSEs as near to what was found as float32's rounding allows.

    ``found`` float32, ``exact`` float64, both ``[rows, width]``; LSEs are the columns from
    ``first`` on.
    """
    wanted = exact[:, first:]
    room = wanted.abs() * LSE_ROUNDING
    near = torch.clamp(found[:, first:].to(exact), wanted - room, wanted + room)
    return torch.cat([exact[:, :first], torch.where(near.isnan(), wanted, near)], dim=1)
