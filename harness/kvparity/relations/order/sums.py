"""The oracle of a plain reduction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kvparity.relations.order.encoding import read_counts
from kvparity.relations.order.recover import Pairs


class SumOracle:
    """Partial sums' sizes of ``function``: ``[P, n]`` -> ``[P]``, each row a sum of its own.

    A row holds ones, and +mask and -mask at the two terms asked for. The ones that are added to
    either mask before the two cancel are swallowed; the others survive and are counted. All rows
    must be reduced alike: that is what a failed recovery would tell. ``batch`` is the most rows
    that one launch takes.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        n: int,
        *,
        mask: float = 2.0**96,
        unit: float = 1.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        batch: int = 4096,
    ) -> None:
        self.function, self.n, self.batch = function, n, batch
        self.mask, self.unit, self.dtype, self.device = mask, unit, dtype, device
        self.launches = 0

    def __call__(self, pairs: Pairs) -> NDArray[np.int64]:
        """Sizes of the partial sums in which the pairs meet."""
        sizes = []
        for start in range(0, len(pairs), self.batch):
            some = torch.from_numpy(pairs[start : start + self.batch])
            x = torch.full((len(some), self.n), self.unit, dtype=self.dtype)
            rows = torch.arange(len(some))
            x[rows, some[:, 0]] = self.mask
            x[rows, some[:, 1]] = -self.mask
            result = self.function(x.to(self.device))
            self.launches += 1
            sizes.append(self.n - read_counts(result.double() / self.unit, "sum", self.n))
        return np.concatenate(sizes)
