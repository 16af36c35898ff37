"""Every known cause: its number is that of a plain script, and ``--explain`` ranks it first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from gaps import causes, tiny
from gaps.causes import CAUSES, STALE, Cause, Given

from kvparity.gaps.explain import Explainer, Explanation
from kvparity.gaps.factors import MoreFactors
from kvparity.gaps.model_side import ModelSide
from kvparity.gaps.patterns import patterns
from kvparity.gaps.settings import Settings
from kvparity.rollouts.anomalies import Anomalies
from kvparity.rollouts.metrics import metrics
from kvparity.rollouts.pairing import Matched, scored_by
from kvparity.rollouts.record import Logprobs
from kvparity.rollouts.tokens import Tokens

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    base = tmp_path_factory.mktemp("causes")
    return causes.made(tiny.checkpoint(base / "model", dropout=0.3), base)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Given:
    base = tmp_path_factory.mktemp("mixture")
    return causes.routed(causes.made(tiny.mixture(base / "model"), base))


Scores = Callable[[Settings, float | None, float | None], list[Logprobs]]


def scorer(given: Given) -> Scores:
    """What the model gives the drawn tokens: computed once for each settings."""

    @cache
    def found(settings: Settings, temperature: float | None, top_p: float | None) -> list[Logprobs]:
        rollouts = [causes.sampled(each, temperature, top_p) for each in given.rollouts]
        return [v for _, v in ModelSide(given.folder, settings, CPU).score(iter(rollouts))]

    return found


@pytest.fixture(scope="module")
def scores(given: Given) -> Scores:
    return scorer(given)


def tokens(cause: Cause, given: Given, values: list[Logprobs]) -> Tokens:
    """The rollout as the cause's script recorded it, and the trainer's values."""
    scored = zip(causes.recorded(cause, given), values, strict=True)
    return Tokens.of(scored_by(scored, Matched(), Anomalies()))


def explained(cause: Cause, given: Given, scores: Scores) -> Explanation:
    def score(settings: Settings) -> tuple[Tokens, None]:
        return tokens(cause, given, scores(settings, cause.temperature, cause.top_p)), None

    more = MoreFactors((str(given.stale),), compiled=cause.compiled, routes=cause.mixture)
    return Explainer(Settings(), score, 600.0, (), lambda trial: None, more).explain()


# torch's compiler imports parts of torch that torch deprecates.
COMPILED = [pytest.mark.compile, pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")]
EVERY = [
    pytest.param(each, id=each.name, marks=COMPILED if each.compiled else []) for each in CAUSES
]


@pytest.mark.parametrize("cause", EVERY)
def test_the_number_is_the_scripts_and_the_cause_is_first(
    cause: Cause, given: Given, mixture: Given, scores: Scores
) -> None:
    if cause.compiled:  # each length of a sequence is compiled anew
        given = replace(given, rollouts=given.rollouts[:1])
        scores = scorer(given)
    if cause.mixture:
        given, scores = mixture, scorer(mixture)
    found = explained(cause, given, scores)
    apart = zip(causes.trainer(given), cause.script(given), strict=True)
    truth = np.mean(np.abs(torch.cat([(a.double() - b.double()) for a, b in apart]).numpy()))
    assert found.base.numbers is not None
    assert found.base.numbers.equal_bits < 1, "the cause must change bits at these sizes"
    assert found.base.numbers.mean_abs_d == pytest.approx(truth, rel=1e-9)
    factor = cause.factor.replace(STALE, str(given.stale))
    assert found.singles[0].factors == (factor,)
    assert found.smallest == (factor,)
    assert found.removed(found.singles[0]) == 1.0
    if not cause.compiled:  # which has too few tokens here
        values = scores(Settings(), cause.temperature, cause.top_p)
        named = patterns(tokens(cause, given, values))
        assert tuple(each.name for each in named) == cause.patterns


def test_without_a_cause_nothing_is_explained(given: Given, scores: Scores) -> None:
    clean = Cause("clean", causes.trainer, "")
    found = explained(clean, given, scores)
    assert found.base.numbers is not None
    assert found.base.numbers.equal_bits == 1
    assert (found.singles, found.together, found.smallest) == ((), (), ())


def test_one_stored_zero_is_a_pattern(given: Given, scores: Scores) -> None:
    """No setting of a model explains it: the numbers name it, and what it does to a mean."""
    one = causes.trainer(given)
    one[1][3] = 0.0
    cause = Cause("zero", lambda _: one, "")
    found = tokens(cause, given, scores(Settings(), 1.0, None))
    assert "zeros" in {each.name for each in patterns(found)}
    lost = float(causes.trainer(given)[1][3])
    assert metrics(found).all.max_abs_d == pytest.approx(-lost, rel=1e-9)
