"""A recorded rollout beside another side, compared from Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kvparity.api.borrowed import borrowed
from kvparity.core.environment import settle as settle_process
from kvparity.gaps import report as gaps
from kvparity.gaps.score import by_model, by_server
from kvparity.gaps.settings import Settings
from kvparity.gaps.sides import MatchedSides, recordings
from kvparity.gaps.spelling import Spelling
from kvparity.gaps.text import render
from kvparity.plan.results import Outcome
from kvparity.rollouts.names import FRAMEWORKS, named
from kvparity.rollouts.tokens import Tokens
from kvparity.run.device import default, settle
from kvparity.servers.http import ServerAddress

TIMEOUT_S = 120.0
"""Of one answer of a server."""

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, repr=False)
class RolloutDrift:
    """How far two sides are apart. ``report``: as ``kvparity drift --json``. ``tokens``: all that
    were compared, as columns.

    It has no truth value: ask for :attr:`holds`, because ``void`` is neither yes nor no.
    """

    report: gaps.DriftReport
    tokens: Tokens

    @property
    def verdict(self) -> Outcome:
        """``holds``, ``differs`` or ``void``."""
        return self.report.verdict

    @property
    def holds(self) -> bool:
        """Whether every token was compared, and is equal or within its limits."""
        return self.verdict == "holds"

    def named(self, framework: str) -> Mapping[str, float]:
        """The numbers under the names that a framework logs; empty if no token is compared.

        Raises:
            ValueError: no such framework is known.
        """
        if framework not in FRAMEWORKS:
            raise ValueError(f"found {framework!r}, expected one of {', '.join(FRAMEWORKS)}")
        return named(framework, self.tokens) if self.tokens.count else {}

    def frame(self) -> DataFrame:
        """One row for each compared token, as a pandas table.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise ImportError(
                "RolloutDrift.frame needs pandas; install it, or use .tokens"
            ) from error
        tokens = self.tokens
        return DataFrame(
            {
                "sequence": np.repeat(np.array(tokens.names, dtype=object), tokens.lengths),
                "position": tokens.positions,
                "token_id": tokens.token_ids,
                "rollout": tokens.rollout,
                "trainer": tokens.trainer,
                "d": tokens.d,
                "equal_bits": tokens.equal,
            }
        )

    def __bool__(self) -> bool:
        """Raises TypeError: of three verdicts only one is a yes, and code should say which."""
        raise TypeError("a drift has no truth value; ask for .holds or .verdict")

    def __str__(self) -> str:
        """The report as ``kvparity drift`` prints it."""
        return render(self.report, {})

    __repr__ = __str__


def drift(
    rollouts: str | Path,
    against: str | Path | None = None,
    *,
    limits: Mapping[str, float] | None = None,
    settings: Settings | None = None,
    vocabulary: int | None = None,
    worst: int = 10,
    tokenizer: str | Path | None = None,
    key_variable: str | None = None,
    timeout: float | None = None,
    served: str | None = None,
    device: str | None = None,
) -> RolloutDrift:
    """How far a recorded rollout is from its rescoring, token by token; d is trainer - rollout.

    Args:
        rollouts: a recording, of any layout that ``kvparity drift`` reads.
        against: a recording of the trainer, the folder of a checkpoint that scores the tokens, or
            the address (``http://HOST:PORT``) of a server that does; left out, the trainer's
            logprobs in ``rollouts``.
        limits: instead of equal bits, the most that ``max_abs_d``, ``mean_abs_d``, ``abs_k1``,
            ``k3`` and ``outside_clip`` may be, in nats or shares.
        settings: how a checkpoint scores.
        vocabulary: refuse token ids that are not below it.
        worst: tokens to name in the report.
        tokenizer: a folder whose tokenizer gives tokens their text.
        key_variable, timeout, served: of a server; the environment variable with its key, seconds
            that one answer may take (left out: 120), and the name of the model.
        device: where a checkpoint runs; as :func:`kvparity.verify`.

    Raises:
        ValueError: an argument means nothing, or is not of this kind of side.
        RolloutError: a recording cannot be used; the message names file and place.
        UnsupportedError, SubjectError: the checkpoint or server cannot be used, or fails.
    """
    _sound(limits, worst, vocabulary, settings)
    path = Path(rollouts)
    spelling = None if tokenizer is None else Spelling(Path(tokenizer))
    if isinstance(against, str) and "://" in against:
        _refuse("a checkpoint", settings=settings, device=device)
        at = ServerAddress(against, key_variable, TIMEOUT_S if timeout is None else timeout)
        both = by_server(path, at, served=served, vocabulary=vocabulary, progress=_silent)
    else:
        _refuse("a server", key_variable=key_variable, served=served, timeout=timeout)
        both = _by_file(path, against, settings, vocabulary, device)
    found = gaps.report(
        both.tokens,
        both.matched,
        both.anomalies,
        rollout=both.rollout,
        trainer=both.trainer,
        limits=limits or {},
        worst=worst,
        spelling=spelling,
    )
    return RolloutDrift(found, both.tokens)


def _by_file(
    path: Path,
    against: str | Path | None,
    settings: Settings | None,
    vocabulary: int | None,
    device: str | None,
) -> MatchedSides:
    other = None if against is None else Path(against)
    if other is None or not other.is_dir():
        _refuse("a checkpoint", settings=settings, device=device)
        return recordings(path, other, vocabulary)
    if vocabulary is not None:
        raise ValueError("vocabulary: a checkpoint has its own")
    asked = settle(device if device is not None else default())
    with borrowed():
        settle_process()
        how = settings or Settings()
        return by_model(path, other, how, device=asked, progress=_silent).sides


def _sound(limits: object, worst: object, vocabulary: object, settings: object) -> None:
    if limits is not None and not isinstance(limits, Mapping):
        raise ValueError(f"limits: found {limits!r}, expected numbers by their names")
    for name, value in (limits or {}).items():
        if name not in gaps.LIMITS:
            raise ValueError(f"limits: found {name!r}, expected of {', '.join(gaps.LIMITS)}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value < float("inf"):
            raise ValueError(f"limits: {name} is {value!r}; expected a number from 0")
    for what, whole, least in (("worst", worst, 0), ("vocabulary", vocabulary, 1)):
        if what == "vocabulary" and whole is None:
            continue
        if not isinstance(whole, int) or isinstance(whole, bool) or whole < least:
            raise ValueError(f"{what} is {whole!r}; expected a whole number from {least}")
    if settings is not None and not isinstance(settings, Settings):
        raise ValueError(f"settings: found {settings!r}, expected kvparity.Settings(...)")


def _refuse(kind: str, **given: object) -> None:
    """What is given and would not be used."""
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise ValueError(f"{', '.join(names)}: of {kind}, which against does not name")


def _silent(done: int, words: str) -> None:
    """Nothing is shown: a notebook and a test have their own ways."""
