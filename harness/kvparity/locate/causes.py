"""Why: a cause from a closed list, with the observation that it rests on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kvparity.locate.account import Account
from kvparity.locate.transplant import Birth

Kind = Literal[
    "reduction order",
    "attention",
    "position",
    "weights or tokens",
    "memory",
    "logprob semantics",
    "not reported",
    "state",
    "no difference",
]
_PLACES: tuple[tuple[str, Kind], ...] = (
    (r" (keys|values)( read)?$", "memory"),
    (r"(rotary_emb| query| key)$", "position"),
    (r" attention$", "attention"),
    (r"(embed|embed_tokens|wte)( input)?$", "weights or tokens"),
    (r"", "reduction order"),
)
"""By the end of an operation's name, what makes such an operation give other bits for equal
inputs. Behind a space is what attention was given; a module may be called ``query``, too."""


@dataclass(frozen=True)
class Cause:
    """``kind`` from the closed list; ``words``: what was observed, in a sentence."""

    kind: Kind
    words: str


def cause(found: Account) -> Cause:
    """What the births say, and what no birth says."""
    if not found.differing:
        words = "both sides gave the same bits now; nothing was located"
        if found.births:
            words = "every compared row is equal now; what parts inside shows in none"
        return Cause("no difference", words)
    kinds = [_kind(each) for each in found.births]
    if "weights or tokens" in kinds:  # all else follows from them
        words = "embeddings differ for the same position: other token ids, or other weights"
        return Cause("weights or tokens", words)
    if found.moved:
        what = ", ".join(found.moved[:3])
        return Cause("memory", f"cells of the cache changed after they were read once: {what}")
    if not found.births:
        return _without(found)
    if found.still and found.explained < 0.5:
        words = "rows that were put right came out wrong again: something is kept between calls"
        return Cause("state", words)
    return _of(kinds)


def _without(found: Account) -> Cause:
    if not found.logits_differ:
        words = "all logits are equal; what is made of them differs (temperature, softmax, sampler)"
        return Cause("logprob semantics", words)
    if not found.operations:
        return Cause("not reported", "the subject reports no operation of this path")
    words = "every operation that is reported is equal; it lies in code that is not"
    return Cause("not reported", words)


def _of(kinds: Sequence[Kind]) -> Cause:
    """A wrong position or cell comes before the sums that it changes."""
    first = next((kind for kind in kinds if kind in ("position", "memory")), kinds[0])
    words = {
        "memory": "a key or value is read with other bits than it was written with",
        "position": "queries or keys are rotated by other angles for the same position",
        "attention": "attention gives other bits for equal queries, keys and values: another "
        "order of its sums, another kernel, another mask or window",
        "reduction order": "an operation gives other bits for equal inputs: another kernel or "
        "another order of its sums for another shape",
    }[first]
    return Cause(first, words)


def _kind(birth: Birth) -> Kind:
    return next(kind for ending, kind in _PLACES if re.search(ending, birth.operation))
