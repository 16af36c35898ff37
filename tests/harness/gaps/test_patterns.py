"""Each cause leaves its pattern and noise leaves none: seeded recordings with one cause planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from kvparity.gaps.patterns import LOOKS, patterns
from kvparity.rollouts.tokens import ScoredSequence, Tokens

Array = npt.NDArray[np.float64]
VOCABULARY = 256


@dataclass
class Drawn:
    """Logits of n rows, the tokens drawn from them, and both sides' logprobs of these."""

    random: np.random.Generator
    logits: Array
    noise: float

    def noisy(self, noise: float | None = None) -> Array:
        """The logits as another kernel has them: a relative error for each."""
        size = self.noise if noise is None else noise
        return self.logits * (1 + self.random.normal(0, size, self.logits.shape))

    def tokens(self, logits: Array) -> npt.NDArray[np.int64]:
        """One drawn for each row (Gumbel's argmax)."""
        found: npt.NDArray[np.int64] = (logits + self.random.gumbel(size=logits.shape)).argmax(-1)
        return found


def _logprobs(logits: Array, tokens: npt.NDArray[np.int64]) -> Array:
    top = logits.max(-1, keepdims=True)
    lse = top[:, 0] + np.log(np.exp(logits - top).sum(-1))
    found: Array = logits[np.arange(tokens.size), tokens] - lse
    return found


def _drawn(random: np.random.Generator, n: int, sharp: float, noise: float) -> Drawn:
    return Drawn(random, random.normal(0, sharp, (n, VOCABULARY)), noise)


Plant = Callable[[Drawn, int, Array, Array], tuple[Array, Array]]
"""Number of the sequence, rollout and trainer without the cause, to both with it."""


def _zeros(drawn: Drawn, number: int, a: Array, b: Array) -> tuple[Array, Array]:
    if number == 3:
        a[int(b.argmin())] = 0
    return a, b


def _temperature(drawn: Drawn, number: int, a: Array, b: Array) -> tuple[Array, Array]:
    tokens = drawn.tokens(drawn.logits / 0.7)
    return _logprobs(drawn.noisy() / 0.7, tokens), _logprobs(drawn.noisy(), tokens)


def _cooler_trainer(drawn: Drawn, number: int, a: Array, b: Array) -> tuple[Array, Array]:
    tokens = drawn.tokens(drawn.logits / 0.5)
    return _logprobs(drawn.noisy(), tokens), _logprobs(drawn.noisy() / 0.5, tokens)


def _dropout(drawn: Drawn) -> Array:
    """Another large error for every logit, as wide as the logits are."""
    return drawn.logits + drawn.random.normal(0, drawn.logits.std(), drawn.logits.shape)


def _dropped_rollout(drawn: Drawn, number: int, a: Array, b: Array) -> tuple[Array, Array]:
    tokens = drawn.tokens(drawn.logits)
    return _logprobs(_dropout(drawn), tokens), _logprobs(drawn.noisy(), tokens)


def _dropped_trainer(drawn: Drawn, number: int, a: Array, b: Array) -> tuple[Array, Array]:
    tokens = drawn.tokens(drawn.logits)
    return _logprobs(drawn.noisy(), tokens), _logprobs(_dropout(drawn), tokens)


def _another_model(drawn: Drawn, number: int, a: Array, b: Array) -> tuple[Array, Array]:
    tokens = drawn.tokens(drawn.logits)
    other = drawn.random.normal(0, drawn.logits.std(), drawn.logits.shape)
    return _logprobs(drawn.noisy(), tokens), _logprobs(other, tokens)


def _top_p(drawn: Drawn, number: int, a: Array, b: Array) -> tuple[Array, Array]:
    order = np.argsort(-drawn.logits, -1)
    ranked = np.take_along_axis(drawn.logits, order, -1)
    shares = np.exp(ranked - ranked.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    kept = np.where(np.cumsum(shares, -1) - shares < 0.9, ranked, -np.inf)
    at = drawn.tokens(kept)
    return _logprobs(kept, at), _logprobs(drawn.noisy(), order[np.arange(at.size), at])


def _shift(drawn: Drawn, number: int, a: Array, b: Array) -> tuple[Array, Array]:
    return a, np.concatenate([b[1:], b[-1:]])


def _first(drawn: Drawn, number: int, a: Array, b: Array) -> tuple[Array, Array]:
    b[0] -= 0.8
    return a, b


def _last(drawn: Drawn, number: int, a: Array, b: Array) -> tuple[Array, Array]:
    b[-1] -= 0.8
    return a, b


def _weights(drawn: Drawn, number: int, a: Array, b: Array) -> tuple[Array, Array]:
    return a, b + drawn.random.normal(0, 0.1, b.size) * (number in (2, 5))


def _edge(drawn: Drawn, number: int, a: Array, b: Array) -> tuple[Array, Array]:
    return a, b + drawn.random.normal(0, 0.3, b.size) * (np.arange(b.size) >= 32)


def _growth(drawn: Drawn, number: int, a: Array, b: Array) -> tuple[Array, Array]:
    return a, a + drawn.random.normal(0, 2e-3, b.size) * (1 + np.arange(b.size))


def _jump(drawn: Drawn, number: int, a: Array, b: Array) -> tuple[Array, Array]:
    b[14] -= 2.65 * (number == 4)
    return a, b


def _head(drawn: Drawn, number: int, a: Array, b: Array) -> tuple[Array, Array]:
    return a, a + drawn.random.normal(0, np.where(a < -8, 0.05, 1e-4))


def _one_row(drawn: Drawn, number: int, a: Array, b: Array) -> tuple[Array, Array]:
    b = a + drawn.random.normal(0, 1e-3, b.size) * (drawn.random.random(b.size) < 0.5)
    b[0] = a[0]
    return a, b


PLANTED: dict[str, Plant] = {
    "zeros": _zeros,
    "shift": _shift,
    "temperature": _temperature,
    "offset": _top_p,
    "first-token": _first,
    "last-token": _last,
    "sequences": _weights,
    "edge": _edge,
    "growth": _growth,
    "jump": _jump,
    "rare-tokens": _head,
    "one-row-steps": _one_row,
}
OTHERS: dict[str, tuple[Plant, list[str]]] = {
    "a trainer's temperature": (_cooler_trainer, ["temperature"]),
    "dropout in the rollout": (_dropped_rollout, []),
    "dropout in the trainer": (_dropped_trainer, []),
    "another model": (_another_model, []),
}
"""Causes on the other side, and those that leave no pattern."""


def _recorded(seed: int, plant: Plant | None) -> Tokens:
    random = np.random.default_rng(seed)
    noise = 1e-3 if plant else float(random.choice([1e-6, 1e-4, 2e-3, 4e-3]))
    sharp = float(random.choice([1.0, 3.0, 4.0])) if plant is not _head else 4.0

    def one(number: int) -> ScoredSequence:
        n = 64 if plant else int(random.integers(8, 80))
        drawn = _drawn(random, n, sharp, noise)
        tokens = drawn.tokens(drawn.logits)
        a, b = _logprobs(drawn.noisy(), tokens), _logprobs(drawn.noisy(), tokens)
        if plant:
            a, b = plant(drawn, number, a, b)
        sides = (-np.abs(it).astype(np.float32) for it in (a, b))  # no logprob is above 0
        at = np.arange(10, 10 + n, dtype=np.int32)
        return ScoredSequence(str(number), *sides, at, tokens.astype(np.int32))

    return Tokens.of(one(number) for number in range(40 if plant is _head else 8))


@pytest.mark.parametrize("name", [*PLANTED, *OTHERS])
def test_a_cause_is_named_alone(name: str) -> None:
    plant, names = OTHERS[name] if name in OTHERS else (PLANTED[name], [name])
    for seed in range(5):
        found = patterns(_recorded(seed, plant))
        assert [each.name for each in found] == names, seed
        assert all(each.evidence and each.confirm for each in found)


def test_every_pattern_is_planted() -> None:
    assert len(PLANTED) == len(LOOKS) + 2, "first and last, edge and growth share a function"


def test_noise_is_no_pattern() -> None:
    """The rate of false alarms that docs/rollouts.md tells: none in 200 clean recordings."""
    alarms = [patterns(_recorded(1000 + seed, None)) for seed in range(200)]
    assert [found for found in alarms if found] == []


def test_too_little_or_nothing_to_see() -> None:
    tokens = _recorded(0, _shift)
    few = Tokens.of([ScoredSequence("a", *(np.full(23, it, np.float32) for it in (-1, -2)),
                                    *(np.arange(23, dtype=np.int32),) * 2)])  # fmt: skip
    assert patterns(few) == ()
    equal = Tokens(tokens.names, tokens.starts, tokens.rollout, tokens.rollout, *(tokens.positions,
                   tokens.token_ids))  # fmt: skip
    assert patterns(equal) == ()
