"""``--explain`` ranks the setting that the rollout really had first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from gaps import tiny

from kvparity.core.errors import UnsupportedError
from kvparity.gaps.explain import Explainer, Explanation, FlipTrial
from kvparity.gaps.factors import factors
from kvparity.gaps.model_side import ModelSide
from kvparity.gaps.settings import Settings
from kvparity.rollouts import Rollout, read_rollouts
from kvparity.rollouts.anomalies import Anomalies
from kvparity.rollouts.pairing import Matched, scored_by
from kvparity.rollouts.record import Logprobs
from kvparity.rollouts.tokens import ScoredSequence, Tokens

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("checkpoint"), dropout=0.3)


@pytest.fixture(scope="module")
def drawn(folder: Path) -> list[Rollout]:
    return list(read_rollouts(tiny.rollout(folder, folder / "r.jsonl", temperature=0.6)))


Scores = Callable[[Settings], list[Logprobs]]


@pytest.fixture(scope="module")
def scores(folder: Path, drawn: list[Rollout]) -> Scores:
    """What the model gives the drawn tokens: computed once for each settings."""

    @cache
    def found(settings: Settings) -> list[Logprobs]:
        return [values for _, values in ModelSide(folder, settings, CPU).score(iter(drawn))]

    return found


def _explained(
    drawn: list[Rollout],
    scores: Scores,
    true: Settings,
    seconds: float = 600.0,
    known: tuple[FlipTrial, ...] = (),
) -> tuple[Explanation, list[FlipTrial]]:
    """Of the rollout as an engine with the settings ``true`` would have recorded it."""
    recorded = [replace(e, logprobs=it) for e, it in zip(drawn, scores(true), strict=True)]

    def score(settings: Settings) -> tuple[Tokens, None]:
        scored = zip(recorded, scores(settings), strict=True)
        return Tokens.of(scored_by(scored, Matched(), Anomalies())), None

    told: list[FlipTrial] = []
    return Explainer(Settings(), score, seconds, known, told.append).explain(), told


def test_two_causes_at_once(drawn: list[Rollout], scores: Scores) -> None:
    """The small one shows only where the large one is flipped."""
    found, _ = _explained(drawn, scores, Settings(processed=True, log_softmax="logits"))
    both = {"logprobs after temperature and top-p", "log_softmax of logits"}
    assert found.singles[0].factors == ("logprobs after temperature and top-p",)
    assert set(found.smallest or ()) == both
    assert set(found.together[0].factors) == both


def test_it_is_resumed_and_says_what_it_did_not_try(drawn: list[Rollout], scores: Scores) -> None:
    true = Settings(log_softmax="logits")
    cut, told = _explained(drawn, scores, true, seconds=-1.0)
    assert [trial.factors for trial in told] == [()]
    assert cut.untried[:2] == (
        "other weights: no folder of them was given",
        "torch.compile: it takes minutes, and was not asked for",
    )
    assert len(cut.untried) == 2 + len(list(factors(Settings())))
    assert all(each.endswith(": the time was over") for each in cut.untried[2:])
    whole, first = _explained(drawn, scores, true)
    again, second = _explained(drawn, scores, true, seconds=-1.0, known=tuple(first))
    assert second == []
    assert again == whole


def test_what_cannot_be_flipped_is_told() -> None:
    ints = np.arange(30, dtype=np.int32)

    def score(settings: Settings) -> tuple[Tokens, None]:
        if settings.dtype == "float32":
            raise UnsupportedError("no memory for float32")
        values = -np.ones(30, dtype=np.float32)
        shift = np.float32(0 if settings.attention == "eager" else 0.5)
        return Tokens.of([ScoredSequence("a", values, values - shift, ints, ints)]), None

    found = Explainer(Settings(), score, 60.0, (), lambda trial: None).explain()
    assert any(it == "dtype float32: no memory for float32" for it in found.untried)
    assert found.smallest == ("attention eager",) or found.smallest == ("fixed order of sums",)
    with pytest.raises(UnsupportedError, match="no memory"):
        Explainer(Settings(dtype="float32"), score, 60.0, (), lambda trial: None).explain()


@pytest.mark.parametrize(
    "base",
    [
        Settings(),
        Settings(dtype="float32", autocast="bfloat16", processed=True),
        Settings(layout="left", micro_batch=2, log_softmax="logits", head_dtype="float32"),
        Settings(attention="eager", invariant=True),
        Settings(train=True, gradient_checkpointing=True),
    ],
)
def test_factors_are_flips(base: Settings) -> None:
    """No factor is what the base already has, and each has a name of its own."""
    found = list(factors(base))
    assert len({each.name for each in found}) == len(found)
    for each in found:
        assert any(getattr(base, name) != value for name, value in each.changes), each.name
