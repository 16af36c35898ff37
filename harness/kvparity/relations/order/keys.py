"""In which order attention adds P V over the keys, seen through columns of V."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kvparity.relations.order.encoding import code_range, read_counts, value_range
from kvparity.relations.order.recover import Pairs
from kvparity.relations.order.sides import Asking, Side, places

Mode = Literal["uniform", "contrast", "alone"]


class KeyOrder(Asking):
    """Sizes of the partial sums of P V. One column of V of one key head asks one pair.

    The column holds units, and +mask and -mask at the pair's keys; what survives is counted. The
    lighter a key, the larger its unit. Weights come in three modes, because a kernel may choose its
    path by them:

    - ``uniform``: all equal.
    - ``contrast``: a random half weighs ``2**-gap``; a pair's keys are in one half, so that their
      weights have equal bits.
    - ``alone``: only the pair weighs 1, all others ``2**-gap``. One pair for each query head, but
      right where partial results are divided by their own denominators before they are merged:
      those are exactly 1 or 2 then. The only one for fp8_e4m3, which holds no mask that would
      swallow units of the same weight.

    ``turn`` moves all probes to other columns and heads.
    """

    def __init__(
        self,
        side: Side,
        mode: Mode = "uniform",
        *,
        turn: int = 0,
        columns: tuple[int, ...] | None = None,
    ) -> None:
        half = torch.float16 in (side.stored, side.out)
        self.range = (
            code_range(side.format, side.out, side.keys)
            if side.coded
            else value_range(side.stored, side.out, side.keys)
        )
        narrow = half or side.format.static
        gaps = {"uniform": 0, "contrast": 1 if narrow else 8, "alone": 10 if narrow else 40}
        self.gap = self.range.gap or gaps[mode]
        side = side.reaching(-self.gap)
        self.side, self.mode, self.turn, self.n = side, mode, turn, side.keys
        group = side.format.group or 1  # columns of a token that share a scale hold one number
        self.columns = (
            np.arange(turn % group, side.heads.dim, group) if columns is None else np.array(columns)
        )
        self.shared = group
        self.rng = np.random.default_rng(turn)

    def __call__(self, pairs: Pairs) -> NDArray[np.int64]:
        """Sizes of the partial sums in which the pairs of keys meet."""
        parts = -(-self.n // self.range.units)
        jobs = np.stack(np.divmod(np.arange(len(pairs) * parts), parts), 1)
        survivors = np.zeros(len(pairs), np.int64)
        while len(jobs):
            jobs = self._launch(pairs, jobs, survivors)
        return self.n - survivors

    def _launch(self, pairs: Pairs, jobs: Pairs, survivors: NDArray[np.int64]) -> Pairs:
        """Answer as many jobs (pair, part of the units) as one launch takes; the rest is left."""
        side = self.side
        log2 = torch.zeros(side.batch, side.heads.kv, 1, self.n)
        if self.mode == "alone":
            log2 = torch.full((side.batch, side.heads.kv, side.patterns, self.n), -float(self.gap))
            where, taken, jobs = self._one_each(jobs)
            b, g, r, _ = where.T
            for ends in pairs[taken[:, 0]].T:
                log2[b, g, r, ends] = 0.0
        else:
            where, taken, jobs = self._columns(pairs, jobs, log2)
            b, g, r, _ = where.T
        columns = where[:, 3]
        i, j = pairs[taken[:, 0]].T
        keys = np.arange(self.n) // self.range.units
        units = torch.from_numpy(keys[None] == taken[:, 1:]).float() * self.range.unit
        own = log2[b, g, r]
        units *= torch.exp2(-own)  # so that every weight * unit is one and the same
        v = side.values()
        for step in range(self.shared):
            column = columns - columns % self.shared + step
            v[b, :, g, column] = units
            v[b, i, g, column] = self.range.mask
            v[b, j, g, column] = -self.range.mask
        q, k = side.weighted(log2)
        out = side.run(q, k, v).out
        if self.mode == "alone":
            read = out[b, g * side.group + r, columns]
        else:
            read = side.alike(out)[b, g, columns]
        scale = torch.exp2(own.double()).sum(-1)
        found = read_counts(
            read.double() * scale / self.range.unit, f"{side.which}, key order", self.n
        )
        np.add.at(survivors, taken[:, 0], found)
        return jobs

    def _one_each(self, jobs: Pairs) -> tuple[Pairs, Pairs, Pairs]:
        """Jobs for the query heads, each with a column of its own within its group."""
        side = self.side
        where = places(side.batch, side.heads.kv, side.patterns, turn=self.turn)[: len(jobs)]
        column = self.columns[(where[:, 2:] + self.turn) % len(self.columns)]
        return np.concatenate([where, column], 1), jobs[: len(where)], jobs[len(where) :]

    def _columns(self, pairs: Pairs, jobs: Pairs, log2: Tensor) -> tuple[Pairs, Pairs, Pairs]:
        """Jobs for every column of every key head; writes the weights that they need."""
        where, taken = [], []
        columns = np.roll(self.columns, -self.turn)
        for b, g in places(self.side.batch, self.side.heads.kv, turn=self.turn):
            fits = np.arange(len(jobs))
            if self.mode == "contrast":
                fits, light = self._halves(pairs[jobs[:, 0]])
                log2[b, g, 0, light] = -float(self.gap)
            fits = fits[: len(columns)]
            taken.append(jobs[fits])
            jobs = np.delete(jobs, fits, 0)
            where.append(np.stack([0 * fits + b, 0 * fits + g, 0 * fits, columns[: len(fits)]], 1))
        return np.concatenate(where), np.concatenate(taken), jobs

    def _halves(self, pairs: Pairs) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """A random half of the keys that many pairs lie in: which pairs fit, which keys are light.

        Pairs are taken until half of the keys are touched.
        """
        half = np.zeros(self.n, bool)
        for at in self.rng.permutation(len(pairs)):
            half[pairs[at]] = True
            if half.sum() * 2 >= self.n:
                break
        fits = np.flatnonzero(half[pairs[:, 0]] == half[pairs[:, 1]])
        return fits, half if self.rng.integers(2) else ~half
