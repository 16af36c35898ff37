"""The two sides of a comparison, sequence by sequence, matched by token ids."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from kvparity.rollouts.anomalies import Anomalies, Anomaly
from kvparity.rollouts.check import SENTINEL
from kvparity.rollouts.record import Ids, Logprobs, Mask, Rollout, RolloutError
from kvparity.rollouts.tokens import ScoredSequence


@dataclass
class Matched:
    """What was matched, filled while sequences are read."""

    pairs: int = 0
    unmatched: list[str] = field(default_factory=list)
    """Sequences of the rollout without a counterpart."""
    unused: list[str] = field(default_factory=list)
    """Sequences of the other side that belong to none."""


def both_recorded(rollouts: Iterator[Rollout], matched: Matched) -> Iterator[ScoredSequence]:
    """Sequences of one recording that has both sides.

    Raises:
        RolloutError: one has not.
    """
    for each in rollouts:
        if each.logprobs is None or each.trainer_logprobs is None:
            raise RolloutError(
                f"sequence {each.sequence} has logprobs of one side alone: name what has the "
                "other's, by --against or as the trainer of a contract"
            )
        matched.pairs += 1
        yield _scored(each, each.logprobs, each.trainer_logprobs, each.mask)


def scored_by(
    scored: Iterator[tuple[Rollout, Logprobs]], matched: Matched, anomalies: Anomalies
) -> Iterator[ScoredSequence]:
    """Each sequence with the logprobs that something gave its response, float32 ``[r]``.

    Raises:
        RolloutError: a sequence has no logprobs of its own.
    """
    for each, trainer in scored:
        own = _own(each)
        wrong = ~np.isfinite(trainer) & each.mask
        if wrong.any():
            anomalies.add(Anomaly.NOT_FINITE, each.sequence, np.flatnonzero(wrong))
        matched.pairs += 1
        yield _scored(each, own, trainer, each.mask & ~wrong)


def _own(each: Rollout) -> Logprobs:
    if each.logprobs is None:
        raise RolloutError(
            f"sequence {each.sequence} has no logprobs of drawn tokens: it is no rollout"
        )
    return each.logprobs


def paired(
    rollouts: Iterator[Rollout],
    others: Iterator[Rollout],
    matched: Matched,
    anomalies: Anomalies,
) -> Iterator[ScoredSequence]:
    """Each sequence of ``rollouts`` with the one of ``others`` that has its tokens.

    The other may hold a longer text (prompt and response as one scored prompt): it must begin with
    all tokens of the first. Sequences in the same order are read side by side; from the first that
    is not in its place on, the rest of ``others`` is held in memory. Sequences without ids are
    matched by their place, if their lengths are equal.

    Raises:
        RolloutError: a side has no logprobs, or lengths without ids differ.
    """
    waiting = _Waiting(others)
    for each in rollouts:
        own = _own(each)
        other = waiting.take(each)
        if other is None:
            matched.unmatched.append(each.sequence)
            continue
        matched.pairs += 1
        trainer, told = _aligned(each, other)
        lost = np.zeros(trainer.size, dtype=np.bool_)
        for kind, where in (
            (Anomaly.MISSING, np.isnan(trainer)),
            (Anomaly.NOT_FINITE, np.isinf(trainer)),
            (Anomaly.SENTINEL, trainer == np.float32(SENTINEL)),
        ):
            lost |= where
            found = np.flatnonzero(where & each.mask & ~told)
            if found.size:
                anomalies.add(kind, each.sequence, found)
        yield _scored(each, own, trainer, each.mask & ~lost)
    matched.unused += waiting.rest()


class _Waiting:
    """Sequences of the other side, in order as long as that serves."""

    def __init__(self, others: Iterator[Rollout]) -> None:
        self._others = others
        self._held: list[tuple[bytes, int, Rollout]] | None = None

    def take(self, wanted: Rollout) -> Rollout | None:
        """The sequence with the same tokens, once; one with further tokens where there is none."""
        if self._held is None:
            found = next(self._others, None)
            if found is not None and _same(wanted, found) and _no_longer(wanted, found):
                return found
            rest = [*([] if found is None else [found]), *self._others]
            self._held = sorted(
                ((_key(each.ids), at, each) for at, each in enumerate(rest)), key=lambda it: it[:2]
            )
        chosen = None
        for at in self._candidates(self._held, _key(wanted.ids)):
            found = self._held[at][2]
            if _same(wanted, found):
                if _no_longer(wanted, found):
                    return self._held.pop(at)[2]
                chosen = at if chosen is None else chosen
        return None if chosen is None else self._held.pop(chosen)[2]

    @staticmethod
    def _candidates(held: list[tuple[bytes, int, Rollout]], key: bytes) -> Iterator[int]:
        """Places of the sequences that begin with those tokens; sorted, they lie side by side."""
        for at in range(bisect_left(held, (key, -1)), len(held)):
            if not held[at][0].startswith(key):
                return
            yield at

    def rest(self) -> list[str]:
        """Names of those that nobody took."""
        held = sorted(self._held or [], key=lambda each: each[1])
        return [each.sequence for each in [*(it[2] for it in held), *self._others]]


def _key(ids: Ids | None) -> bytes:
    """Bytes that begin with those of every beginning of ``ids``; nothing where there are none."""
    return b"" if ids is None else ids.tobytes()


def _same(wanted: Rollout, found: Rollout) -> bool:
    """Whether ``found`` begins with the tokens of ``wanted``."""
    if wanted.response_ids is None or found.response_ids is None:
        return wanted.response_ids is found.response_ids and _responses_alike(wanted, found)
    if wanted.ids is None or found.ids is None:
        return _responses_alike(wanted, found)
    return found.ids.size >= wanted.ids.size and bool(
        (found.ids[: wanted.ids.size] == wanted.ids).all()
    )


def _no_longer(wanted: Rollout, found: Rollout) -> bool:
    """Whether ``found`` is of these tokens alone, or scores them alone as its prompt: one that goes
    on may belong to another sequence, which goes on so."""
    if wanted.ids is None or found.ids is None or found.prompt_ids is None:
        return True
    return wanted.ids.size in (found.ids.size, found.prompt_ids.size)


def _responses_alike(wanted: Rollout, found: Rollout) -> bool:
    if wanted.mask.size != found.mask.size:
        return False
    if wanted.response_ids is None or found.response_ids is None:
        return True
    return bool((wanted.response_ids == found.response_ids).all())


def _aligned(wanted: Rollout, found: Rollout) -> tuple[Logprobs, Mask]:
    """The other side's logprobs of the response of ``wanted``, NaN where it has none that counts;
    and where it was told already that it has none."""
    values = found.trainer_logprobs if found.trainer_logprobs is not None else found.logprobs
    nothing = np.zeros(found.mask.size, dtype=np.bool_)
    told = nothing if found.unusable is None else found.unusable
    own = None if values is None else np.where(found.mask, values, np.float32(np.nan))
    if wanted.ids is None or found.ids is None or found.prompt_ids is None:
        if own is None:
            raise RolloutError(f"sequence {found.sequence} has no logprobs of its response")
        return own, told
    prompt = found.prompt_logprobs
    everything = np.full(found.ids.size, np.nan, dtype=np.float32)
    if prompt is not None:
        everything[: prompt.size] = prompt
    if own is not None:
        everything[found.prompt_ids.size :] = own
    assert wanted.prompt_ids is not None
    response = slice(wanted.prompt_ids.size, wanted.ids.size)
    told_of_all = np.concatenate([np.zeros(found.prompt_ids.size, dtype=np.bool_), told])
    return everything[response], told_of_all[response]


def _scored(each: Rollout, rollout: Logprobs, trainer: Logprobs, mask: Mask) -> ScoredSequence:
    kept = np.flatnonzero(mask)
    first = 0 if each.prompt_ids is None else each.prompt_ids.size
    ids = None if each.response_ids is None else each.response_ids[kept]
    return ScoredSequence(
        sequence=each.sequence,
        rollout=rollout[kept],
        trainer=trainer[kept],
        positions=(kept + first).astype(np.int32),
        token_ids=np.full(kept.size, -1, dtype=np.int32) if ids is None else ids.astype(np.int32),
    )
