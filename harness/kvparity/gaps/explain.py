"""Which setting of the model explains the gap: one flipped at a time, then those that mattered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.gaps.factors import NO_MORE, Factor, MoreFactors, factors
from kvparity.gaps.flips import RouteFlips
from kvparity.gaps.settings import Settings
from kvparity.rollouts.metrics import metrics
from kvparity.rollouts.tokens import Tokens

MATTERS = 0.05
"""Share of k3 that a flip removes, or of tokens that it makes equal, to be tried with others."""
MOST_PAIRED = 4
"""Factors, best first, that are tried in pairs."""
MOST_TOGETHER = 3
"""Factors that are flipped at once."""


@dataclass(frozen=True)
class Numbers:
    """The gap of one run."""

    k3: float
    mean_abs_d: float
    equal_bits: float


@dataclass(frozen=True)
class FlipTrial:
    """One run: which factors were flipped, and the gap then. ``skipped``: why there is none.

    ``flips``: of the base, choices of experts other than the recorded ones; of another run, other
    than the base's. None: no mixture of experts, or nothing to compare with.
    """

    factors: tuple[str, ...]
    settings: str
    numbers: Numbers | None
    skipped: str = ""
    flips: RouteFlips | None = None


@dataclass(frozen=True)
class Explanation:
    """``singles``, ``together``: best first. ``smallest``: the fewest flips that reach equal bits;
    none, and nothing is tried, where there is no gap.

    ``untried``: what was left out, each with its reason.
    """

    base: FlipTrial
    singles: tuple[FlipTrial, ...]
    together: tuple[FlipTrial, ...]
    smallest: tuple[str, ...] | None
    untried: tuple[str, ...]

    def removed(self, trial: FlipTrial) -> float:
        """Share of the base's k3 that is gone, at most 1; below 0 where the gap grew."""
        if trial.numbers is None or self.base.numbers is None or not self.base.numbers.k3:
            return 0.0
        return 1 - trial.numbers.k3 / self.base.numbers.k3


Score = Callable[[Settings], tuple[Tokens, RouteFlips | None]]
Told = Callable[[FlipTrial], None]


class Explainer:
    """Runs trials within ``seconds``; ``known`` are those of an earlier run, by their settings.

    ``score`` may refuse settings (``UnsupportedError``, ``SubjectError``): that trial is skipped
    with its reason.
    """

    def __init__(
        self,
        base: Settings,
        score: Score,
        seconds: float,
        known: Sequence[FlipTrial],
        told: Told,
        more: MoreFactors = NO_MORE,
    ) -> None:
        self.base, self.score, self.told, self.more = base, score, told, more
        self.until = time.monotonic() + seconds
        self.known = {trial.settings: trial for trial in known}
        self.untried = list(more.untried)

    def explain(self) -> Explanation:
        """All single flips, pairs, and the best with one more at a time.

        Pairs are those of flips that mattered, and of a dtype with attention, head or log_softmax:
        the right dtype beside the wrong attention may be farther off than the wrong one.
        """
        base = self._trial((), self.base)
        if _equal(base):
            return Explanation(base, (), (), (), ())
        every = {each.name: each for each in factors(self.base, self.more)}
        if not self.more.candidates:
            self.untried.append("other weights: no folder of them was given")
        if not self.more.compiled:
            self.untried.append("torch.compile: it takes minutes, and was not asked for")
        singles = sorted(filter(None, (self._flip((it,)) for it in every.values())), key=_worse)
        together: dict[frozenset[str], FlipTrial] = {}
        if base.numbers is not None and singles and not any(_equal(it) for it in singles):
            matter = [every[it.factors[0]] for it in singles if _matters(base, it)]
            acted = {name: every[name] for it in singles for name in it.factors}
            for pair in [*combinations(matter[:MOST_PAIRED], 2), *_with_precision(acted)]:
                self._keep(together, pair)
            self._grow(acted, min([*singles, *together.values()], key=_worse), together)
        equal = [it for it in (*singles, *together.values()) if _equal(it)]
        return Explanation(
            base=base,
            singles=tuple(singles),
            together=tuple(sorted(together.values(), key=_worse)),
            smallest=min(equal, key=lambda it: len(it.factors)).factors if equal else None,
            untried=tuple(dict.fromkeys(self.untried)),
        )

    def _keep(
        self, together: dict[frozenset[str], FlipTrial], chosen: Sequence[Factor]
    ) -> FlipTrial | None:
        """Flips several at once, if they are not two values of one setting."""
        names = [name for each in chosen for name, _ in each.changes]
        if len(names) > len(set(names)):
            return None
        key = frozenset(each.name for each in chosen)
        if key not in together and (trial := self._flip(chosen)) is not None:
            together[key] = trial
        return together.get(key)

    def _grow(
        self,
        every: Mapping[str, Factor],
        best: FlipTrial,
        together: dict[frozenset[str], FlipTrial],
    ) -> None:
        """The best, with each other factor: a large cause hides small ones until it is flipped.

        Stops at equal bits, and where no further flip matters; what the last set does not need is
        taken out again.
        """
        while len(best.factors) < MOST_TOGETHER and not _equal(best):
            kept = [every[name] for name in best.factors]
            others = [it for name, it in every.items() if name not in best.factors]
            grown = [self._keep(together, (*kept, other)) for other in others]
            found = sorted((it for it in grown if it is not None), key=_worse)
            if not found or not _matters(best, found[0]):
                return
            best = found[0]
        for name in best.factors:
            self._keep(together, [every[other] for other in best.factors if other != name])

    def _flip(self, chosen: Sequence[Factor]) -> FlipTrial | None:
        name = " + ".join(each.name for each in chosen)
        changes = {key: value for each in chosen for key, value in each.changes}
        try:
            settings = replace(self.base, **changes)  # type: ignore[arg-type]
        except ValueError as error:
            self.untried.append(f"{name}: {error}")
            return None
        if settings == self.base:
            return None
        if time.monotonic() > self.until and settings.words() not in self.known:
            self.untried.append(f"{name}: the time was over")
            return None
        trial = self._trial(tuple(each.name for each in chosen), settings)
        if trial.numbers is None:
            self.untried.append(f"{name}: {trial.skipped}")
            return None
        return trial

    def _trial(self, names: tuple[str, ...], settings: Settings) -> FlipTrial:
        words = settings.words()
        if words in self.known:
            return replace(self.known[words], factors=names)
        try:
            tokens, flips = self.score(settings)
            trial = FlipTrial(names, words, _numbers(tokens), flips=flips)
        except (UnsupportedError, SubjectError) as error:
            if not names:
                raise
            trial = FlipTrial(names, words, None, str(error))
        self.known[words] = trial
        self.told(trial)
        return trial


def _with_precision(every: Mapping[str, Factor]) -> Iterator[tuple[Factor, Factor]]:
    for first in every.values():
        for second in every.values():
            names = {name for name, _ in second.changes}
            beside = names & {"attention", "head_dtype", "log_softmax"}
            if any(name == "dtype" for name, _ in first.changes) and beside:
                yield first, second


def _numbers(tokens: Tokens) -> Numbers:
    found = metrics(tokens)
    return Numbers(found.all.k3, found.all.mean_abs_d, found.equal_bits)


def _equal(trial: FlipTrial) -> bool:
    return trial.numbers is not None and trial.numbers.equal_bits == 1


def _worse(trial: FlipTrial) -> tuple[float, float, float]:
    """Ranks trials: the most equal bits where all are equal, else the smallest k3."""
    numbers = trial.numbers
    assert numbers is not None
    return (-float(numbers.equal_bits == 1), numbers.k3, -numbers.equal_bits)


def _matters(before: FlipTrial, trial: FlipTrial) -> bool:
    base, numbers = before.numbers, trial.numbers
    assert base is not None
    assert numbers is not None
    fewer = base.k3 > 0 and numbers.k3 < (1 - MATTERS) * base.k3
    return fewer or numbers.equal_bits > base.equal_bits + MATTERS
