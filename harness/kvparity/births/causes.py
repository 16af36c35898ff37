"""Why: a cause from a closed list, with the observation that it rests on."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kvparity.births.account import Account
from kvparity.births.transplant import Birth
from kvparity_contracts.causes import CauseKind, Part

_PLACES: tuple[tuple[str, CauseKind, Part], ...] = (
    (r" keys seen$", "mask or window", "attention"),
    (r" (keys|values)( read)?$", "memory", "cache"),
    (r"(rotary_emb| query| key)$", "position", "rotary"),
    (r" attention$", "reduction order", "attention"),
    (r"(embed|embed_tokens|wte)( input)?$", "weights or tokens", "tokens"),
    (r"(norm|ln_\w+)$", "reduction order", "norm"),
    (
        r"(proj|logits|lm_head|gate|router|dense|fc\d*|query|key|value)$",
        "reduction order",
        "linear",
    ),
    (r"", "reduction order", "other"),
)
"""By the end of an operation's name, what makes such an operation give other bits for equal
inputs, and its part of the model. Behind a space is what attention was given; a module may be
called ``query``, too."""
_KERNEL = re.compile(r"(mm|bmm|addmm|addmv|mv|dot|matmul|linear|baddbmm|einsum|\w*attention\w*) ")
"""Operators that multiply matrices or attend, as they are noted with their shapes."""


@dataclass(frozen=True)
class Cause:
    """``kind`` from the closed list; ``words``: what was observed, in a sentence; ``part``: where
    the first operation lies that parts (None: none was found)."""

    kind: CauseKind
    words: str
    part: Part | None = None


def first_birth(found: Account) -> Birth:
    """The first operation that diverges, of the first position of the first sequence with one."""
    return min(found.births, key=lambda each: (each.sequence, each.position))


def cause(found: Account) -> Cause:
    """What the births say, and what no birth says."""
    if not found.differing:
        words = "both sides gave the same bits now; nothing was located"
        if found.births:
            words = "every compared row is equal now; what differs inside shows in none of them"
        return Cause("no difference", words)
    if not found.births:
        return _without(found)
    signs = found.signs
    kinds = [_place(each)[0] for each in found.births]
    if "weights or tokens" in kinds:  # all else follows from them
        return _of_tokens(found)
    read = [each for each in found.births if each.read]
    if read and all(each.same for each in read):
        words = "keys or values are read as they were written, but in another format or scale"
        return Cause("store", words, "cache")
    if signs.moved:
        what = ", ".join(signs.moved[:3])
        words = f"cells of the cache changed after they were read once: {what}"
        return Cause("memory", words, "cache")
    left = found.still if found.whole else 0  # what other births would make equal says nothing
    if left and signs.unwritten:
        return _unwritten(signs.unwritten)
    if left and not found.still_logits:
        return _of_scores("once the births are put right, ")
    share = found.mended if found.explained is None else found.explained
    if left and (signs.unsteady or share < 0.5):
        words = "rows that were put right came out wrong again: something is kept between calls"
        if signs.unsteady:
            words = "one side gave different bits when rerun: something is kept between calls"
        return Cause("not deterministic", words, _place(first_birth(found))[1])
    return _of(found)


def _without(found: Account) -> Cause:
    signs = found.signs
    if not found.whole:
        first = "nothing" if found.first is None else found.first[0]
        words = "time ended before an operation was found that diverges by itself; the first whose"
        return Cause("unknown", f"{words} rows differ is {first}")
    if not signs.logits_differ and not signs.unwritten:
        return _of_scores("")
    if signs.traced:
        words = "the same steps without a traced program give the reference's bits"
        return Cause("traced program", words, "program")
    if signs.unwritten and found.operations:
        return _unwritten(signs.unwritten)
    if not found.operations:
        return Cause("unknown", "the subject reports no operation of this path")
    words = "every reported operation is equal; the difference arises in code that reports none"
    return Cause("unknown", words)


def _unwritten(rows: int) -> Cause:
    words = f"after all reported operations {rows} rows are NaN: nothing wrote them"
    return Cause("memory", words, "sampler")


def _of_scores(when: str) -> Cause:
    words = "logits are equal; what is computed from them differs (temperature, softmax, sampler)"
    return Cause("logprob semantics", when + words, "sampler")


def _of_tokens(found: Account) -> Cause:
    if found.signs.shifted:
        words = (
            f"tokens are {found.signs.shifted} positions too far on: pads before them are attended "
            "to as tokens"
        )
        return Cause("mask or window", words, "tokens")
    words = "embeddings differ for the same position: other token ids, or other weights"
    return Cause("weights or tokens", words, "tokens")


def _of(found: Account) -> Cause:
    """A wrong position, cell or mask comes before the sums that it changes."""
    places = [(each, *_place(each)) for each in found.births]
    sums = "reduction order"
    wrong = next((each for each in places if each[1] != sums), None)
    first, kind, part = wrong or (first_birth(found), *_place(first_birth(found)))
    if kind == sums:
        kind, words = _of_sums(found, first)
    else:
        words = {
            "memory": "a key or value is read with different bits than it was written with",
            "position": "queries or keys are rotated by different angles for the same position",
            "mask or window": "attention sees different keys for the same position",
        }[kind]
    return Cause(kind, words, part)


def _of_sums(found: Account, first: Birth) -> tuple[CauseKind, str]:
    """Of an operation that gives other bits for equal inputs."""
    ours, theirs = found.signs.products
    if ours != theirs:
        words = f"the products of one side are {', '.join(ours)}, of the other {', '.join(theirs)}"
        return "another instruction", words
    if found.signs.walked:
        what = ", ".join(found.signs.walked[:3])
        return "reduction order", f"keys are read in another order than they were written: {what}"
    a, b = (tuple(dict.fromkeys(_kernels(each))) for each in first.ran)
    if a and b and set(a) != set(b):
        words = f"equal inputs, but different operators: {', '.join(a)} and {', '.join(b)}"
        return "another kernel", words
    words = (
        "an operation gives different bits for equal inputs, all of which are known: another order "
        "of its sums for another shape, or another kernel or instruction that rounds differently"
    )
    return "reduction order", words


def _kernels(ran: tuple[str, ...]) -> list[str]:
    return [each.partition(" ")[0] for each in ran if _KERNEL.match(each)]


def _place(birth: Birth) -> tuple[CauseKind, Part]:
    return next(
        (kind, part) for ending, kind, part in _PLACES if re.search(ending, birth.operation)
    )
