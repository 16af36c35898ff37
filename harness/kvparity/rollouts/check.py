"""From what a file says to a :class:`Rollout`, or one sentence why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kvparity.rollouts.anomalies import Anomalies, Anomaly
from kvparity.rollouts.record import (
    Ids,
    Logprobs,
    Mask,
    Number,
    RawRollout,
    Rollout,
    RolloutError,
    Routes,
)

SENTINEL = -9999.0
"""vLLM's stand-in for minus infinity in JSON (its ``clamp_logprob``)."""
LARGEST = 2**31 - 1
"""No vocabulary has a larger id."""


@dataclass(frozen=True)
class Checker:
    """Checks sequence after sequence. ``vocabulary``: ids must be below it, where it is known."""

    anomalies: Anomalies
    vocabulary: int | None = None

    def rollout(self, raw: RawRollout) -> Rollout:
        """The sequence, checked.

        Raises:
            RolloutError: lists whose lengths do not fit, ids outside of the vocabulary, a mask of
                anything but 0 and 1, a logprob above 0, no logprobs at all, a temperature or
                top-p that is none, or a name that is no text.
        """
        _text_and_sampling(raw)
        length = _length(raw)
        counts = _mask(raw, length)
        logprobs = self._logprobs(raw, "logprobs", raw.logprobs, counts)
        trainer = self._logprobs(raw, "trainer_logprobs", raw.trainer_logprobs, counts)
        prompt_logprobs = self._logprobs(raw, "prompt_logprobs", raw.prompt_logprobs)
        if logprobs is None and trainer is None and prompt_logprobs is None:
            raise _error(raw, f"it has no {raw.name('logprobs')}")
        mask = counts.copy()
        for values, given in ((logprobs, raw.logprobs), (trainer, raw.trainer_logprobs)):
            if values is not None and given is not None:
                mask &= self._usable(raw, values, given, mask)
        if (logprobs is not None or trainer is not None) and not mask.any():
            self.anomalies.add(Anomaly.NO_TOKEN, raw.sequence)
        if raw.response_ids is None:
            self.anomalies.add(Anomaly.NO_IDS, raw.sequence)
        elif raw.prompt_ids is None:
            self.anomalies.add(Anomaly.NO_PROMPT, raw.sequence)
        return Rollout(
            sequence=raw.sequence,
            prompt_ids=self._ids(raw, "prompt_ids", raw.prompt_ids),
            response_ids=self._ids(raw, "response_ids", raw.response_ids),
            mask=mask,
            logprobs=logprobs,
            trainer_logprobs=trainer,
            prompt_logprobs=prompt_logprobs,
            sampling=raw.sampling,
            weight_versions=raw.weight_versions,
            routes=_routes(raw, length),
            unusable=counts & ~mask,
        )

    def _ids(self, raw: RawRollout, name: str, ids: Sequence[int] | None) -> Ids | None:
        if ids is None:
            return None
        most = LARGEST if self.vocabulary is None else min(self.vocabulary - 1, LARGEST)
        try:
            wide = np.asarray(ids, dtype=np.int64)
        except OverflowError:  # one that no int64 holds
            at = next(at for at, each in enumerate(ids) if not 0 <= each <= most)
        else:
            outside = (wide < 0) | (wide > most)
            if not outside.any():
                return wide
            at = int(outside.argmax())
        raise _error(raw, f"{raw.name(name)}[{at}] is {ids[at]}; expected ids from 0 to {most}")

    def _logprobs(
        self,
        raw: RawRollout,
        name: str,
        values: Sequence[Number] | None,
        counts: Mask | None = None,
    ) -> Logprobs | None:
        """``counts``: the tokens that are looked at (default: all)."""
        if values is None:
            return None
        exact = np.array([np.nan if it is None else it for it in values], dtype=np.float64)
        looked = np.ones(exact.size, dtype=np.bool_) if counts is None else counts
        above = (exact > 0) & looked
        if above.any():
            at = int(above.argmax())
            found = f"{raw.name(name)}[{at}] is {exact[at]}"
            raise _error(
                raw, f"{found}; a logprob is never above 0: are these probabilities or logits?"
            )
        with np.errstate(over="ignore"):
            narrow = exact.astype(np.float32)
        rounded = looked & np.isfinite(exact) & (narrow.astype(np.float64) != exact)
        if rounded.any():
            self.anomalies.add(Anomaly.ROUNDED, raw.sequence, np.flatnonzero(rounded))
        return narrow

    def _usable(
        self, raw: RawRollout, values: Logprobs, given: Sequence[Number], mask: Mask
    ) -> Mask:
        """Where the loss mask counts a token, and its logprob is one."""
        missing = np.array([it is None for it in given], dtype=np.bool_)
        not_finite = ~np.isfinite(values) & ~missing
        sentinel = values == np.float32(SENTINEL)
        for kind, where in (
            (Anomaly.MISSING, missing),
            (Anomaly.NOT_FINITE, not_finite),
            (Anomaly.SENTINEL, sentinel),
            (Anomaly.ZERO, values == 0),
        ):
            found = np.flatnonzero(where & mask)
            if found.size:
                self.anomalies.add(kind, raw.sequence, found)
        usable: Mask = ~(missing | not_finite | sentinel)
        return usable


def _text_and_sampling(raw: RawRollout) -> None:
    for name, text in (("sequence", raw.sequence), *(("weight", it) for it in raw.weight_versions)):
        if any("\ud800" <= each <= "\udfff" for each in text):
            raise RolloutError(f"{raw.at}: {name} {text!r} has half a character; expected text")
    temperature, top_p = raw.sampling.temperature, raw.sampling.top_p
    if temperature is not None and not 0 <= temperature < np.inf:
        raise _error(raw, f"temperature is {temperature}; expected a finite number from 0")
    if top_p is not None and not 0 < top_p <= 1:
        raise _error(raw, f"top_p is {top_p}; expected a number above 0, at most 1")


def _length(raw: RawRollout) -> int:
    """Of the response. Every list of it must have this length."""
    lists = {
        "response_ids": raw.response_ids,
        "logprobs": raw.logprobs,
        "trainer_logprobs": raw.trainer_logprobs,
        "mask": raw.mask,
    }
    lengths = {raw.name(name): len(it) for name, it in lists.items() if it is not None}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise _error(raw, f"its lists differ in length: {said}; expected one value for each token")
    if raw.prompt_ids is not None and raw.prompt_logprobs is not None:
        prompt, scored = len(raw.prompt_ids), len(raw.prompt_logprobs)
        if prompt != scored:
            names = f"{raw.name('prompt_ids')} {prompt}, {raw.name('prompt_logprobs')} {scored}"
            raise _error(raw, f"its lists differ in length: {names}; expected one value each")
    return next(iter(lengths.values()), 0)


def _mask(raw: RawRollout, length: int) -> Mask:
    if raw.mask is None:
        return np.ones(length, dtype=np.bool_)
    values = np.asarray(raw.mask, dtype=np.float64)
    wrong = (values != 0) & (values != 1)
    if wrong.any():
        at = int(wrong.argmax())
        raise _error(raw, f"{raw.name('mask')}[{at}] is {raw.mask[at]}; expected 0 or 1")
    kept: Mask = values == 1
    return kept


def _routes(raw: RawRollout, length: int) -> Routes | None:
    if raw.routes is None:
        return None
    try:
        routes = np.asarray(raw.routes, dtype=np.int32)
    except (ValueError, TypeError, OverflowError):
        routes = np.zeros(0, dtype=np.int32)
    tokens = len(raw.prompt_ids or ()) + length
    fits = raw.prompt_ids is None or routes.shape[0] in (tokens, tokens - 1)
    if routes.ndim != 3 or not fits:
        name = raw.name("routes")
        raise _error(raw, f"{name} is no list of [tokens, layers, experts] for {tokens} tokens")
    return routes


def _error(raw: RawRollout, text: str) -> RolloutError:
    return RolloutError(f"{raw.at}: sequence {raw.sequence}: {text}")
