"""Choices of experts that differ between two sides, and how much of a gap lies on their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kvparity.rollouts.record import Rollout, RolloutError, Routes
from kvparity.rollouts.tokens import Ints, ScoredSequence, Tokens

if TYPE_CHECKING:
    from kvparity.gaps.model_side import ModelSide
    from kvparity.gaps.routing import Routing

MOST = 5
"""Tokens that are named."""


@dataclass(frozen=True)
class TakenExperts:
    """Of all compared tokens, in their order, those of the row that scores each.

    ``taken``, ``recorded``: [n, layers, per token], sorted; ``recorded`` is None where one sequence
    has none of this model, which ``why`` says. ``layers``: their numbers in the model.
    """

    layers: tuple[int, ...]
    taken: Routes
    recorded: Routes | None
    why: str = ""


class SeenExperts:
    """Of one run of a model that is watched, sequence by sequence, as it is scored."""

    def __init__(self, side: ModelSide, routing: Routing) -> None:
        self._side, self._routing = side, routing
        self._taken: list[Routes] = []
        self._recorded: list[Routes] = []
        self._why = ""

    def kept(self, found: ScoredSequence) -> ScoredSequence:
        """What it is given: the sequence that the model scored last, with its compared tokens."""
        assert self._side.last is not None
        each, experts = self._side.last
        rows = found.positions - 1
        self._add(each, rows, experts)
        return found

    def _add(self, each: Rollout, rows: Ints, experts: Routes) -> None:
        self._taken.append(_sorted(experts[rows]))
        if self._why:
            return
        try:
            self._recorded.append(_sorted(self._routing.recorded(each)[rows]))
        except RolloutError as error:
            self._why = str(error)

    def all(self) -> TakenExperts:
        """Of all sequences."""
        width = (0, len(self._routing.layers), self._routing.per_token)
        nothing = np.zeros(width, dtype=np.int32)
        taken, recorded = (
            np.concatenate([nothing, *each]) for each in (self._taken, self._recorded)
        )
        return TakenExperts(
            self._routing.layers, taken, None if self._why else recorded, why=self._why
        )


def _sorted(experts: Routes) -> Routes:
    found: Routes = np.sort(experts, axis=-1)
    return found


@dataclass(frozen=True)
class Rerouted:
    """A token and the first layer that chose otherwise; later ones may only follow it."""

    sequence: str
    position: int
    layer: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    d: float


@dataclass(frozen=True)
class RouteFlips:
    """``tokens``: compared; ``rerouted``: of these, with other experts in some layer.

    ``layers``: (number, tokens with other experts there). ``k3``, ``abs_d``: share of the sums of
    e^d - 1 - d and of abs(d) that lies on rerouted tokens. ``worst``: largest abs(d) first.
    """

    tokens: int
    rerouted: int
    layers: tuple[tuple[int, int], ...]
    k3: float
    abs_d: float
    worst: tuple[Rerouted, ...]


def flips(tokens: Tokens, layers: Sequence[int], before: Routes, after: Routes) -> RouteFlips:
    """Of two sides' experts, [n, layers, per token], sorted, beside the gap of ``tokens``."""
    apart = (before != after).any(-1)
    rerouted = apart.any(-1)
    d = tokens.d
    size = np.abs(d)
    at = np.flatnonzero(rerouted)
    at = at[np.argsort(-size[at], kind="stable")][:MOST]
    first = apart.argmax(-1)
    return RouteFlips(
        tokens=tokens.count,
        rerouted=int(rerouted.sum()),
        layers=tuple(zip(layers, apart.sum(0).tolist(), strict=True)),
        k3=_share(np.expm1(d) - d, rerouted),
        abs_d=_share(size, rerouted),
        worst=tuple(
            Rerouted(
                sequence=tokens.names[tokens.sequence_of(int(token))],
                position=int(tokens.positions[token]),
                layer=layers[first[token]],
                before=tuple(before[token, first[token]].tolist()),
                after=tuple(after[token, first[token]].tolist()),
                d=float(d[token]),
            )
            for token in at
        ),
    )


def from_recorded(tokens: Tokens, experts: TakenExperts | None) -> RouteFlips | None:
    """What a model chose otherwise than recorded; None where either is not known."""
    if experts is None or experts.recorded is None:
        return None
    return flips(tokens, experts.layers, experts.recorded, experts.taken)


def from_base(
    tokens: Tokens, base: TakenExperts | None, other: TakenExperts | None
) -> RouteFlips | None:
    """What another run chose otherwise than the base, beside the base's gap; None where the same
    tokens are not known of both."""
    if base is None or other is None or base.taken.shape != other.taken.shape:
        return None
    return flips(tokens, base.layers, base.taken, other.taken)


def _share(values: npt.NDArray[np.float64], of: npt.NDArray[np.bool_]) -> float:
    whole = float(values.sum())
    return float(values[of].sum()) / whole if whole else 0.0
