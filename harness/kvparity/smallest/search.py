"""The search: larger jumps first, then one thing at a time until none is left that still fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from kvparity.smallest.knobs import knobs
from kvparity.smallest.one_case import OneCase
from kvparity.smallest.reductions import (
    SmallerCase,
    chunks,
    singles,
    with_fewer,
    with_generate,
    with_steps,
    without,
)
from kvparity_contracts.draws import means
from kvparity_contracts.steps import WrittenSteps

CaseOutcome = Literal["same", "other", "holds", "void", "error"]


@dataclass(frozen=True)
class TriedCase:
    """What became of a case: it fails in the same way, in another way, or not.

    ``failure``: the class of what differs; ``sequence`` and ``position``: of the first row that
    does. ``words``: what was found.
    """

    outcome: CaseOutcome
    failure: str = ""
    words: str = ""
    sequence: int = 0
    position: int = 0


SEEDS = 6
"""Other random data that are tried of a length behind an edge, or of fewer heads."""


class OutOfTimeError(Exception):
    """The budget has ended."""


Ask = Callable[[OneCase], TriedCase]
Tell = Callable[[int, OneCase], None]


@dataclass
class Search:
    """Asks of a case at most once. ``deadline``: by the monotonic clock."""

    ask: Ask
    deadline: float
    known: dict[str, TriedCase]
    tell: Tell
    best: OneCase
    asked: int = 0
    met: dict[str, tuple[OneCase, TriedCase]] = field(default_factory=dict)

    def look(self, case: OneCase) -> TriedCase:
        """What becomes of a case.

        Raises:
            OutOfTimeError: it is not known yet, and no time is left.
        """
        key = case.key
        if key not in self.known:
            if time.monotonic() >= self.deadline:
                raise OutOfTimeError
            self.known[key] = self.ask(case)
            self.asked += 1
        self.met[key] = case, self.known[key]
        self.tell(len(self.met), self.best)
        return self.known[key]

    def fails(self, case: OneCase | None) -> bool:
        """Whether a case is one, and fails in the same way; then it is the best so far."""
        if case is None or self.look(case).outcome != "same":
            return False
        self.best = case
        return True

    def run(self, written: Callable[[OneCase], WrittenSteps | None]) -> bool:
        """Make ``best`` as small as it gets; whether it is 1-minimal.

        ``written``: the steps of a path by name, where they can be written out.
        """
        try:
            self._jumps()
            self._lengths()
            self._by_chance()
            while self._one_less() or self._written_out(written):
                self._lengths()
        except OutOfTimeError:
            return False
        return True

    def _one_less(self) -> bool:
        """Take what still fails with one thing less, if anything does."""
        return any(self.fails(each.case) for each in singles(self.best))

    def _jumps(self) -> None:
        """The sequence of the first row that differs alone, cut to that row."""
        found = self.look(self.best)
        others = set(range(len(self.best.workload.lengths()))) - {found.sequence}
        if others and self.fails(without(self.best, others)):
            found = self.look(self.best)
        prompt = self.best.workload.lengths()[found.sequence]
        if self.best.path.kind != "steps" and found.position > prompt:
            tokens = found.position - prompt
            longer = _longer(self.best, found.sequence, tokens)
            self.fails(longer)
        self._halves()

    def _halves(self) -> None:
        """Drop halves of the sequences, then quarters: delta debugging."""
        parts = 2
        while (count := len(self.best.workload.lengths())) >= parts:
            size = -(-count // parts)
            groups = [set(range(at, min(at + size, count))) for at in range(0, count, size)]
            if any(self.fails(without(self.best, group)) for group in groups):
                parts = max(parts - 1, 2)
            elif parts >= count:
                break
            else:
                parts = min(2 * parts, count)

    def _lengths(self) -> None:
        """Each prompt and the generated tokens: halved, then to the edges."""
        generate = self.best.workload.generate
        self._halved(generate, lambda case, n: with_generate(case, n))
        for number in reversed(range(len(chunks(self.best)))):
            self._halved(self._tokens(number), lambda case, n, at=number: _cut_to(case, at, n))  # type: ignore[misc] # bound now
        if self.best.path.kind == "steps":
            return
        edges = means(self.best.contract).edges
        near = sorted({e.keys + side for e in edges for side in (-2, -1, 0, 1)})
        for number in range(len(chunks(self.best))):
            now = self._tokens(number)
            any(self.fails(_cut_to(self.best, number, n)) for n in near if 0 < n < now)

    def _by_chance(self) -> None:
        """Behind an edge, or in fewer heads, rows may be equal by chance: of a pair, other data are
        tried."""
        if self.best.contract.subject.kind != "attention" or self.best.path.kind == "steps":
            return
        edges = {edge.keys for edge in means(self.best.contract).edges}
        if self.best.contract.numerics.device is not None:  # lanes add their sums by halves
            edges |= {1 << n for n in range(1, min(edges, default=1).bit_length())}
        behind = sorted({keys + side for keys in edges for side in (0, 1)})
        for number in range(len(chunks(self.best))):
            shorter = (_cut_to(self.best, number, n) for n in behind if n < self._tokens(number))
            any(self._drawn(case) for case in shorter)
        heads = (knob for knob in knobs(self.best) if knob.name == "heads")
        for _, changes in next(heads).smaller:
            if self._drawn(self.best.changed(changes)):
                break

    def _drawn(self, case: OneCase | None) -> bool:
        """Whether a case fails, with data of other seeds if not with its own."""
        if case is None:
            return False
        seed = case.contract.seed
        return any(self.fails(case.changed({("seed",): seed + more})) for more in range(1 + SEEDS))

    def _tokens(self, number: int) -> int:
        return chunks(self.best)[number].count

    def _halved(self, now: int, changed: Callable[[OneCase, int], OneCase | None]) -> None:
        """The least number that fails, if all above it do: by halving what is left between."""
        passes, fails = 0, now
        while fails - passes > 1:
            middle = (passes + fails) // 2
            if self.fails(changed(self.best, middle)):
                fails = middle
            else:
                passes = middle

    def _written_out(self, written: Callable[[OneCase], WrittenSteps | None]) -> bool:
        """A path by name that holds more than one sequence's steps, as written steps."""
        if self.best.path.kind not in ("batched", "mixed", "permuted", "uniform", "paged", "reset"):
            return False
        steps = written(self.best)
        return steps is not None and self.fails(with_steps(self.best, steps))

    def neighbours(self) -> Iterator[SmallerCase]:
        """What passes with one thing less than the best, tokens first."""
        found = [
            each
            for each in singles(self.best)
            if each.case.key in self.known and self.known[each.case.key].outcome == "holds"
        ]
        rank = ("tokens", "generated", "sequences")
        order = {word: number for number, word in enumerate(rank)}
        yield from sorted(found, key=lambda each: order.get(each.what.split()[0], len(rank)))


def _cut_to(case: OneCase, number: int, count: int) -> OneCase | None:
    """With ``count`` tokens left of a chunk of a prompt."""
    chunk = chunks(case)[number]
    return with_fewer(case, chunk, chunk.count - count)


def _longer(case: OneCase, sequence: int, tokens: int) -> OneCase | None:
    """With generated tokens of a pair made part of its prompt, so that few are generated."""
    own = case.workload
    if own.prompt_tokens is None or own.generate - tokens < 1:
        return None
    prompts = [n + tokens if i == sequence else n for i, n in enumerate(own.prompt_tokens)]
    return case.changed(
        {
            ("workloads", 0, "prompt_tokens"): list(prompts),
            ("workloads", 0, "generate"): own.generate - tokens,
        }
    )
