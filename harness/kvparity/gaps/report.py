"""What a comparison found, as one frozen value, and its verdict."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from kvparity.core.words import some
from kvparity.gaps.curves import Bin, OneSequence, by_logprob, by_position, by_sequence
from kvparity.gaps.explain import Explanation
from kvparity.gaps.pattern import Pattern
from kvparity.gaps.patterns import patterns
from kvparity.gaps.spelling import Spelling
from kvparity.gaps.token import Token
from kvparity.rollouts.anomalies import Anomalies, Anomaly
from kvparity.rollouts.metrics import Metrics, metrics
from kvparity.rollouts.names import FRAMEWORKS, named
from kvparity.rollouts.pairing import Matched
from kvparity.rollouts.tokens import Tokens
from kvparity_contracts.json_types import JsonObject, JsonValue

SCHEMA_VERSION = 1
MOST_NAMED = 20
"""Sequences without a counterpart that are named; all are counted."""
LIMITS = ("max_abs_d", "mean_abs_d", "abs_k1", "k3", "outside_clip")
"""What can be limited. Without a limit, every token must have equal bits."""

Verdict = Literal["holds", "differs", "void"]


@dataclass(frozen=True)
class Source:
    """A side of the comparison. ``layout``: of a recording, or what else it is."""

    name: str
    layout: str


@dataclass(frozen=True)
class FoundKind:
    """A kind of unusual tokens. ``left_out``: they are in no number."""

    kind: str
    count: int
    left_out: bool
    text: str


@dataclass(frozen=True)
class DriftReport:
    """``reason``: why the verdict is what it is. ``metrics``: None where no token is compared."""

    verdict: Verdict
    reason: str
    rollout: Source
    trainer: Source
    pairs: int
    unmatched: int
    unmatched_names: tuple[str, ...]
    unused: int
    found: tuple[FoundKind, ...]
    limits: Mapping[str, float]
    metrics: Metrics | None
    worst: tuple[Token, ...]
    by_position: tuple[Bin, ...]
    by_logprob: tuple[Bin, ...]
    by_sequence: tuple[OneSequence, ...]
    patterns: tuple[Pattern, ...]


def report(
    tokens: Tokens,
    matched: Matched,
    anomalies: Anomalies,
    *,
    rollout: Source,
    trainer: Source,
    limits: Mapping[str, float],
    worst: int = 10,
    spelling: Spelling | None = None,
) -> DriftReport:
    """Everything that is said of two sides. ``worst``: tokens to name, largest abs(d) first, none
    where d is 0. ``spelling``: gives their text."""
    measured = metrics(tokens) if tokens.count else None
    verdict, reason = judge(tokens, measured, matched, anomalies, limits)
    return DriftReport(
        verdict=verdict,
        reason=reason,
        rollout=rollout,
        trainer=trainer,
        pairs=matched.pairs,
        unmatched=len(matched.unmatched),
        unmatched_names=tuple(matched.unmatched[:MOST_NAMED]),
        unused=len(matched.unused),
        found=tuple(
            FoundKind(
                kind.name.lower(), anomalies.counts[kind], kind.rule.value == "left out", text
            )
            for kind, text in zip(
                (kind for kind in Anomaly if anomalies.counts[kind]),
                anomalies.sentences(),
                strict=True,
            )
        ),
        limits=dict(limits),
        metrics=measured,
        worst=worst_tokens(tokens, worst, spelling),
        by_position=by_position(tokens),
        by_logprob=by_logprob(tokens),
        by_sequence=by_sequence(tokens),
        patterns=patterns(tokens),
    )


def judge(
    tokens: Tokens,
    measured: Metrics | None,
    matched: Matched,
    anomalies: Anomalies,
    limits: Mapping[str, float],
    *,
    unmatched: int = 0,
) -> tuple[Verdict, str]:
    """``differs`` outranks ``void``, which outranks ``holds``.

    ``unmatched``: sequences that may lack a counterpart.
    """
    if anomalies.counts[Anomaly.NOT_FINITE]:
        return "differs", f"{anomalies.counts[Anomaly.NOT_FINITE]} logprobs are NaN or infinite"
    if measured is None:
        return "void", "no token is compared"
    over = [
        f"{name} {found:.3g} is above its limit {limits[name]:g}"
        for name, found in limited(tokens, measured, limits).items()
        if name in limits and not found <= limits[name]
    ]
    if over:
        return "differs", "; ".join(over)
    differing = int((~tokens.equal).sum())
    if not limits and differing:
        return "differs", f"{differing} of {tokens.count} tokens differ in bits"
    if len(matched.unmatched) > unmatched:
        names = ", ".join(matched.unmatched[:3]) + (", …" if len(matched.unmatched) > 3 else "")
        return "void", f"{some(len(matched.unmatched), 'sequence')} without a counterpart ({names})"
    if anomalies.counts[Anomaly.MISSING] or anomalies.counts[Anomaly.SENTINEL]:
        lost = anomalies.counts[Anomaly.MISSING] + anomalies.counts[Anomaly.SENTINEL]
        return "void", f"{some(lost, 'counted token')} without a logprob"
    if not limits and anomalies.counts[Anomaly.ROUNDED]:
        rounded = anomalies.counts[Anomaly.ROUNDED]
        return "void", f"{rounded} logprobs are no float32, so equal bits cannot be claimed"
    if limits:
        return "holds", "every limit holds"
    return "holds", f"all {tokens.count} tokens have equal bits"


def limited(tokens: Tokens, measured: Metrics, names: Collection[str]) -> dict[str, float]:
    """What limits are set for; of the names that frameworks log, those in ``names``."""
    every = measured.all
    values = (every.max_abs_d, every.mean_abs_d, abs(every.k1), every.k3, measured.outside_clip)
    found = dict(zip(LIMITS, values, strict=True))
    asked = set(names) - found.keys()
    for framework in FRAMEWORKS if asked else ():
        logged = named(framework, tokens)
        found |= {name: logged[name] for name in logged if name in asked}
    return found


def worst_tokens(tokens: Tokens, most: int, spelling: Spelling | None = None) -> tuple[Token, ...]:
    """At most so many, largest abs(d) first; none where d is 0."""
    size = np.abs(tokens.d)
    most = min(most, tokens.count)
    at = np.argpartition(-size, most - 1)[:most] if most else np.zeros(0, dtype=np.int64)
    at = at[np.lexsort((at, -size[at]))]
    at = at[size[at] > 0]
    return tuple(token(tokens, int(each), spelling) for each in at)


def token(tokens: Tokens, at: int, spelling: Spelling | None = None) -> Token:
    """The compared token number ``at``."""
    sequence = tokens.sequence_of(at)
    start, stop = int(tokens.starts[sequence]), int(tokens.starts[sequence + 1])
    found = Token(
        sequence=tokens.names[sequence],
        position=int(tokens.positions[at]),
        token_id=int(tokens.token_ids[at]),
        rollout=float(tokens.rollout[at]),
        trainer=float(tokens.trainer[at]),
        d=float(tokens.trainer[at]) - float(tokens.rollout[at]),
        before=tuple(tokens.token_ids[max(start, at - 3) : at].tolist()),
        after=tuple(tokens.token_ids[at + 1 : min(stop, at + 4)].tolist()),
    )
    return found if spelling is None else spelling.of(found)


def document(
    found: DriftReport,
    names: Mapping[str, Mapping[str, float]],
    explained: Explanation | None = None,
) -> JsonObject:
    """As JSON has it: numbers that are not finite are ``"inf"``, ``"-inf"`` and ``"nan"``."""
    value = {"schema_version": SCHEMA_VERSION, **asdict(found), "names": dict(names)}
    plain = plain_document(
        value | {"explanation": None if explained is None else asdict(explained)}
    )
    assert isinstance(plain, dict)
    return plain


def plain_document(value: object) -> JsonValue:
    """As JSON has it: mappings, lists, and names of numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain_document(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_document(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    assert value is None or isinstance(value, (bool, int, float, str)), type(value)
    return value
