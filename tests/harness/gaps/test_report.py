"""The verdict of two sides, and the report of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from kvparity.gaps.curves import by_logprob, by_position, by_sequence
from kvparity.gaps.report import LIMITS, DriftReport, Source, document, report, worst_tokens
from kvparity.gaps.text import render
from kvparity.rollouts.anomalies import Anomalies, Anomaly
from kvparity.rollouts.names import FRAMEWORKS, named
from kvparity.rollouts.pairing import Matched
from kvparity.rollouts.tokens import ScoredSequence, Tokens

SIDE = Source("a.jsonl", "RolloutWriter")


def _tokens(*gaps: list[float], rollout: float = -2.0, first: int = 0) -> Tokens:
    """A sequence for each list of d; every number is exact in float32."""

    def one(name: int, d: list[float]) -> ScoredSequence:
        left = np.full(len(d), rollout, dtype=np.float32)
        at = np.arange(first, first + len(d), dtype=np.int32)
        return ScoredSequence(str(name), left, (left + d).astype(np.float32), at, at + 100)

    return Tokens.of(one(name, d) for name, d in enumerate(gaps))


def _report(
    tokens: Tokens,
    found: dict[Anomaly, int] | None = None,
    unmatched: tuple[str, ...] = (),
    **limits: float,
) -> DriftReport:
    anomalies = Anomalies()
    for kind, count in (found or {}).items():
        anomalies.add(kind, "s", range(count))
    matched = Matched(len(tokens.names), list(unmatched), [])
    return report(tokens, matched, anomalies, rollout=SIDE, trainer=SIDE, limits=limits)


EQUAL = _tokens([0.0, 0.0], [0.0])
APART = _tokens([0.0, 0.25], [-0.5])


@pytest.mark.parametrize(
    ("asked", "verdict", "reason"),
    [
        (partial(_report, EQUAL), "holds", "all 3 tokens have equal bits"),
        (partial(_report, EQUAL, {Anomaly.ZERO: 2}), "holds", "all 3 tokens have equal bits"),
        (partial(_report, APART), "differs", "2 of 3 tokens differ in bits"),
        (partial(_report, Tokens.of([])), "void", "no token is compared"),
        (
            partial(_report, EQUAL, unmatched=("b", "c")),
            "void",
            "2 sequences without a counterpart (b, c)",
        ),
        (
            partial(_report, EQUAL, {Anomaly.MISSING: 2}),
            "void",
            "2 counted tokens without a logprob",
        ),
        (
            partial(_report, EQUAL, {Anomaly.SENTINEL: 1}),
            "void",
            "1 counted token without a logprob",
        ),
        (
            partial(_report, EQUAL, {Anomaly.ROUNDED: 1}),
            "void",
            "1 logprobs are no float32, so equal bits",
        ),
        (
            partial(_report, EQUAL, {Anomaly.NOT_FINITE: 1}),
            "differs",
            "1 logprobs are NaN or infinite",
        ),
        (partial(_report, Tokens.of([]), {Anomaly.NOT_FINITE: 1}), "differs", "1 logprobs are NaN"),
        (partial(_report, APART, unmatched=("b",)), "differs", "2 of 3 tokens differ in bits"),
        (
            partial(_report, APART, {Anomaly.ROUNDED: 1}, max_abs_d=0.5),
            "holds",
            "every limit holds",
        ),
        (
            partial(_report, APART, max_abs_d=0.49),
            "differs",
            "max_abs_d 0.5 is above its limit 0.49",
        ),
        (
            partial(_report, APART, mean_abs_d=0.24),
            "differs",
            "mean_abs_d 0.25 is above its limit 0.24",
        ),
        (partial(_report, APART, abs_k1=0.08), "differs", "abs_k1 0.0833 is above its limit 0.08"),
        (partial(_report, APART, k3=0.04), "differs", "k3 0.0469 is above its limit 0.04"),
        (
            partial(_report, APART, outside_clip=0.5),
            "differs",
            "outside_clip 0.667 is above its limit 0.5",
        ),
        (
            partial(_report, APART, unmatched=("b",), k3=1.0),
            "void",
            "1 sequence without a counterpart (b)",
        ),
        (
            partial(_report, APART, {Anomaly.MISSING: 1}, k3=1.0),
            "void",
            "1 counted token without a logprob",
        ),
    ],
)
def test_verdicts(asked: Callable[[], DriftReport], verdict: str, reason: str) -> None:
    found = asked()
    assert found.verdict == verdict
    assert found.reason.startswith(reason)


def test_what_is_unusual_says_whether_it_is_left_out() -> None:
    found = _report(EQUAL, {Anomaly.ZERO: 2, Anomaly.MISSING: 1}).found
    assert [(each.kind, each.count, each.left_out) for each in found] == [
        ("missing", 1, True),
        ("zero", 2, False),
    ]


@pytest.mark.parametrize(
    ("missing", "words"), [("abc", "3 sequences (a, b, c)"), ("abcd", "4 sequences (a, b, c, …)")]
)
def test_three_are_named(missing: str, words: str) -> None:
    count, names = words.split(" sequences ")
    reason = _report(EQUAL, unmatched=tuple(missing)).reason
    assert reason == f"{count} sequences without a counterpart {names}"


def test_so_many_are_named_in_the_report() -> None:
    many = _report(_tokens([0.5] * 12), unmatched=tuple(map(str, range(22))))
    assert (many.unmatched, len(many.unmatched_names), len(many.worst)) == (22, 20, 10)
    assert [each.position for each in many.worst] == list(range(10))


def test_every_limit_is_measured() -> None:
    assert _report(APART, **dict.fromkeys(LIMITS, 1.0)).verdict == "holds"
    for name in LIMITS:
        assert _report(APART, **{name: 0.0}).verdict == "differs"


def test_the_worst_tokens() -> None:
    tokens = _tokens([0.0, 0.25, 0.0, 0.5], [-0.5, 0.0])
    found = _report(tokens).worst
    assert [(it.sequence, it.position, it.d) for it in found] == [
        ("0", 3, 0.5),
        ("1", 0, -0.5),
        ("0", 1, 0.25),
    ]
    assert (found[0].before, found[0].after) == ((100, 101, 102), ())
    assert (found[2].before, found[2].after) == ((100,), (102, 103))
    two = worst_tokens(_tokens([1.0, 0.125, 0.5]), 2)
    assert [each.position for each in two] == [0, 2]
    (middle,) = _report(_tokens([0.0] * 5 + [1.0] + [0.0] * 5)).worst
    assert (middle.before, middle.after) == ((102, 103, 104), (106, 107, 108))


def test_curves() -> None:
    """Positions 14 to 17, and logprobs at the edges of bins."""
    tokens = _tokens([0.0, 0.5, -0.5, 0.25], first=14)
    low, high = by_position(tokens)
    assert (low.low, low.high, low.tokens, low.max_abs_d) == (0.0, 16.0, 2, 0.5)
    assert (high.low, high.high, high.tokens) == (16.0, 32.0, 2)
    assert (high.mean_d, high.mean_abs_d, high.equal_bits) == (-0.125, 0.375, 0.0)
    assert (low.equal_bits, low.mean_d) == (0.5, 0.25)
    edges = [(-20.0, -16.0), (-16.0, -8.0), (-2.0, -1.0), (-0.0625, 0.0), (0.0, 0.0)]
    for logprob, high_edge in edges:
        (only,) = by_logprob(_tokens([-0.5], rollout=logprob))
        assert only.high == high_edge, logprob
    assert [(it.sequence, it.tokens, it.mean_abs_d) for it in by_sequence(APART)] == [
        ("0", 2, 0.125),
        ("1", 1, 0.5),
    ]


def test_the_document_is_json() -> None:
    far = _tokens([800.0], rollout=-900.0)
    names = {each: named(each, far) for each in FRAMEWORKS}
    found = json.loads(json.dumps(document(_report(far), names), allow_nan=False))
    assert found["metrics"]["all"]["k3"] == "inf"
    assert found["by_logprob"][0]["low"] == "-inf"
    assert found["names"]["verl"]["training/rollout_actor_probs_pearson_corr"] == "nan"
    assert found["verdict"] == "differs"
    assert document(_report(Tokens.of([])), {})["metrics"] is None


@pytest.mark.parametrize("tokens", [EQUAL, APART, Tokens.of([]), _tokens([21.0], rollout=-30.0)])
def test_the_text(tokens: Tokens) -> None:
    names = {"trl": named("trl", tokens)} if tokens.count else {}
    found = _report(tokens, {Anomaly.ZERO: 1}, unmatched=("b", "c", "d", "e"))
    text = render(found, names)
    assert text.endswith(f"{found.verdict.upper()}: {found.reason}")
    assert "4 have no counterpart (b, c, d, …)" in text
    assert "1 × a stored logprob of exactly 0.0" in text
    assert ("clamp |d| at 20: that acted on 1 token and 1 sequence" in text) == (tokens.count == 1)
    assert ("worst tokens" in text) == bool(found.worst)
    assert ("worst sequences" in text) == (len(tokens.names) > 1)
    assert ("sampling/importance_sampling_ratio/max" in text) == bool(names)
    assert max(map(len, text.splitlines())) <= 120
    assert "-0 " not in text
