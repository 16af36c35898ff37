"""What is unusual in a recording: found with sequence and token, each kind with its rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

MOST_EXAMPLES = 5
"""Of each kind; all are counted."""


class AnomalyRule(Enum):
    """What is done with a token: left out of every number, or kept and counted."""

    MASKED = "left out"
    COUNTED = "kept"


class Anomaly(Enum):
    """Everything that is found without stopping; the rest is an error (``check.py``)."""

    MISSING = ("no logprob", AnomalyRule.MASKED)
    NOT_FINITE = ("a logprob that is NaN or infinite", AnomalyRule.MASKED)
    SENTINEL = ("a stored -9999.0, which vLLM writes for minus infinity", AnomalyRule.MASKED)
    ZERO = (
        "a stored logprob of exactly 0.0, which is often one that is missing",
        AnomalyRule.COUNTED,
    )
    ROUNDED = ("a logprob that is no float32 and was rounded to one", AnomalyRule.COUNTED)
    REPLACED_ID = ("an id that the server reports as 0 and the request names", AnomalyRule.COUNTED)
    NO_IDS = ("a sequence without token ids, matched by its place alone", AnomalyRule.COUNTED)
    NO_PROMPT = ("a sequence whose prompt tokens are not recorded", AnomalyRule.COUNTED)
    NO_TOKEN = ("a sequence in which no token is compared", AnomalyRule.COUNTED)

    @property
    def text(self) -> str:
        """In words, with an article."""
        return self.value[0]

    @property
    def rule(self) -> AnomalyRule:
        """What is done with it."""
        return self.value[1]


class Example(NamedTuple):
    """``token``: of the response, from 0; None where the whole sequence is meant."""

    kind: Anomaly
    sequence: str
    token: int | None


class Anomalies:
    """Counts of everything that was found, and the first few of each kind: memory does not grow."""

    def __init__(self) -> None:
        self.counts: Counter[Anomaly] = Counter()
        self.examples: dict[Anomaly, list[Example]] = {}

    def add(self, kind: Anomaly, sequence: str, tokens: Iterable[int] | None = None) -> None:
        """One finding for each token, or one for the sequence."""
        at: list[int | None] = [None] if tokens is None else [int(token) for token in tokens]
        self.counts[kind] += len(at)
        kept = self.examples.setdefault(kind, [])
        kept += [Example(kind, sequence, token) for token in at[: MOST_EXAMPLES - len(kept)]]

    def join(self, other: Anomalies) -> None:
        """What another reader found is found here, too."""
        self.counts += other.counts
        for kind, examples in other.examples.items():
            kept = self.examples.setdefault(kind, [])
            kept += examples[: MOST_EXAMPLES - len(kept)]

    def sentences(self) -> list[str]:
        """One for each kind that was found, in the order of :class:`Anomaly`."""
        return [self._sentence(kind) for kind in Anomaly if self.counts[kind]]

    def _sentence(self, kind: Anomaly) -> str:
        count, examples = self.counts[kind], self.examples[kind]
        where = ", ".join(
            found.sequence if found.token is None else f"{found.sequence} token {found.token}"
            for found in examples
        )
        more = ", …" if count > len(examples) else ""
        return f"{count} × {kind.text}; {kind.rule.value} ({where}{more})"
