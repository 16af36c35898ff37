"""Every compared token of two sides as columns: what metrics, patterns and plots are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
import numpy.typing as npt

from kvparity.rollouts.record import Logprobs

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ScoredSequence:
    """One sequence with both sides. All of [n], its compared tokens alone.

    ``positions``: in the whole sequence, from 0, where the prompt is known; else in the response.
    ``token_ids``: -1 where they are not recorded.
    """

    sequence: str
    rollout: Logprobs
    trainer: Logprobs
    positions: Ints
    token_ids: Ints


@dataclass(frozen=True)
class Tokens:
    """All compared tokens. n tokens of s sequences, in the order of the recording.

    ``rollout``, ``trainer``: float32 [n]. ``starts``: [s + 1], where each sequence begins.
    """

    names: tuple[str, ...]
    starts: Longs
    rollout: Logprobs
    trainer: Logprobs
    positions: Ints
    token_ids: Ints

    @classmethod
    def of(cls, sequences: Iterable[ScoredSequence]) -> Tokens:
        """Sequences without a compared token are left out."""
        kept = [each for each in sequences if each.rollout.size]
        lengths = np.array([each.rollout.size for each in kept], dtype=np.int64)
        return cls(
            names=tuple(each.sequence for each in kept),
            starts=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)]),
            rollout=_joined((each.rollout for each in kept), np.float32),
            trainer=_joined((each.trainer for each in kept), np.float32),
            positions=_joined((each.positions for each in kept), np.int32),
            token_ids=_joined((each.token_ids for each in kept), np.int32),
        )

    @property
    def count(self) -> int:
        """n."""
        return int(self.rollout.size)

    @cached_property
    def d(self) -> Doubles:
        """trainer - rollout, float64 [n]."""
        d = self.trainer.astype(np.float64)
        d -= self.rollout
        return d

    @cached_property
    def equal(self) -> npt.NDArray[np.bool_]:
        """Where both sides have the same bits, [n]. +0 and -0 differ."""
        same: npt.NDArray[np.bool_] = self.rollout.view(np.int32) == self.trainer.view(np.int32)
        return same

    def sums(self, values: Doubles) -> Doubles:
        """Of [n] over each sequence: [s]."""
        if not self.names:
            return np.zeros(0, dtype=np.float64)
        return np.add.reduceat(values, self.starts[:-1])

    @property
    def lengths(self) -> Longs:
        """MatchedSides tokens of each sequence, [s]."""
        return np.diff(self.starts)

    def sequence_of(self, token: int) -> int:
        """Which sequence a token belongs to."""
        return int(np.searchsorted(self.starts, token, side="right")) - 1

    def without(self, token: int) -> Tokens:
        """The same less one token."""
        sequence = self.sequence_of(token)
        starts = self.starts.copy()
        starts[sequence + 1 :] -= 1
        kept = np.ones(self.count, dtype=np.bool_)
        kept[token] = False
        names = self.names
        if starts[sequence] == starts[sequence + 1]:
            names = (*names[:sequence], *names[sequence + 1 :])
            starts = np.delete(starts, sequence)
        return Tokens(
            names,
            starts,
            self.rollout[kept],
            self.trainer[kept],
            self.positions[kept],
            self.token_ids[kept],
        )


def _joined(parts: Iterator[npt.NDArray[np.generic]], dtype):  # type: ignore[no-untyped-def]
    return np.concatenate(list(chain([np.zeros(0, dtype=dtype)], parts)), dtype=dtype)
