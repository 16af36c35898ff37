"""Relation *cache*: what a cache holds at the end.

Two claims. What a path's cache holds has the bits of what the reference's holds, at every position
that both hold. And on each side what is read is what was written, rounded as the store declares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor

from kvparity.core.bits import differing, pattern, ulps
from kvparity.core.values import LIST, Count
from kvparity.plan.results import Details, Divergence
from kvparity.record.cache_snapshot import CachePlace, CacheSnapshot
from kvparity.relations.bits_and_limits import Comparison, number, same_work
from kvparity_kernels.digest import row_digest

PARTS: tuple[Literal["k"], Literal["v"]] = ("k", "v")
Again = Callable[[str, CachePlace], CacheSnapshot]
"""(side, place) -> that side (``reference`` or ``path``), rerun and the place kept."""


class CacheDetails(Details):
    """How much of two caches was compared."""

    layers: Count
    """storing layers"""
    compared: Count
    """keys and values that were compared"""
    differing: Count
    """keys and values that differ"""
    sides: Annotated[tuple[str, str], LIST] = ("reference", "candidate")
    """`["written", "read"]` where one side alone is wrong"""


def compare(
    reference: CacheSnapshot,
    candidate: CacheSnapshot,
    again: Again | None = None,
) -> Comparison:
    """Compare two caches with each other, and each with what was written.

    Without ``again`` a difference is told without its bits.
    """
    if len(reference.held) != len(candidate.held):
        layers = f"{len(reference.held)} against {len(candidate.held)} storing layers"
        return Comparison("void", f"the two sides hold {layers}")
    for side, one in (("reference", reference), ("path", candidate)):
        found = _alone(side, one, again)
        if found is not None:
            return found
    rows = _shared(reference, candidate)
    both = reference.is_held[:, :rows] & candidate.is_held[:, :rows]
    tokens = int(both.any(0).sum())
    if not tokens:
        return Comparison("void", "no position is held by both sides")
    off = (reference.held[:, :rows] != candidate.held[:, :rows]) & both[..., None]
    details = CacheDetails(layers=len(both), compared=2 * int(both.sum()), differing=int(off.sum()))
    if not bool(off.any()):
        idle = same_work(reference.record, candidate.record)
        if idle is not None:
            return Comparison("void", idle, tokens=tokens, details=details)
        words = f"{details.compared} keys and values of {len(both)} layers"
        return Comparison(
            "holds", f"{words} are equal, and as written", tokens=tokens, details=details
        )
    place, part = _first(off, candidate)
    divergence = None
    if again is not None:
        sides = [again(side, place).values[place][0] for side in ("reference", "path")]
        divergence = _divergence(candidate, place, part, sides[0], sides[1])
    return Comparison(
        "differs",
        f"{_words(candidate, place, part)} differs from what the reference holds",
        tokens=tokens,
        differing_tokens=int(off.any(-1).any(0).sum()),
        first_divergence=divergence,
        details=details,
    )


def _alone(side: str, one: CacheSnapshot, again: Again | None) -> Comparison | None:
    """What is wrong with one side's cache, whatever the other holds."""
    name = "the reference" if side == "reference" else "the path"
    tokens = int(one.is_held.any(0).sum())
    if not bool(one.is_held.any()):
        return Comparison("void", f"{name} holds nothing at the end")
    if not bool(one.is_written.any()):
        return Comparison("void", f"{name} does not report what it writes, so there is nothing "
                          "to compare")  # fmt: skip
    lost = one.needed & one.is_written & ~one.is_held
    if bool(lost.any()):
        place, _ = _first(lost[..., None], one)
        reason = f"{name} no longer holds {_words(one, place)}, which the next query would see"
        return _found(reason, one, lost, tokens)
    ghosts = one.is_held & ~one.is_written
    if bool(ghosts.any()):
        place, _ = _first(ghosts[..., None], one)
        return _found(f"{name} holds {_words(one, place)}, which nobody wrote", one, ghosts, tokens)
    off = (one.held != one.written) & one.is_held[..., None]
    if not bool(off.any()):
        return None
    place, part = _first(off, one)
    reason = f"{name} holds another {_words(one, place, part)} than was written"
    divergence = None
    if again is not None:
        read, fresh = again(side, place).values[place]
        divergence = _divergence(one, place, part, fresh, read)
    return _found(reason, one, off.any(-1), tokens, divergence)


def _shared(reference: CacheSnapshot, candidate: CacheSnapshot) -> int:
    """Rows of the members that both sides begin with: strangers and donors come last."""
    rows = 0
    for a, b in zip(reference.record.plan.members, candidate.record.plan.members, strict=False):
        if a != b:
            break
        rows += a.length
    return rows


def _found(
    reason: str, one: CacheSnapshot, off: Tensor, tokens: int, divergence: Divergence | None = None
) -> Comparison:
    details = CacheDetails(
        layers=len(off),
        compared=2 * int(one.is_held.sum()),
        differing=int(off.sum()),
        sides=("written", "read"),
    )
    return Comparison(
        "differs",
        reason,
        tokens=tokens,
        differing_tokens=int(off.any(0).sum()),
        first_divergence=divergence,
        details=details,
    )


def _first(off: Tensor, held: CacheSnapshot) -> tuple[CachePlace, int]:
    """The first place of ``off`` ``[layers, positions, parts]``, by sequence and position."""
    row = int(torch.nonzero(off.any(-1).any(0))[0])
    layer, part = (int(each) for each in torch.nonzero(off[:, row])[0])
    sequence, position = held.index[row]
    return CachePlace(layer, sequence, position), part


def _words(held: CacheSnapshot, place: CachePlace, part: int | None = None) -> str:
    what = "position" if part is None else f"{PARTS[part]} at position"
    name = held.record.plan.members[place.sequence].id
    return f"{what} {place.position} of {name} in layer {place.layer}"


def _divergence(
    held: CacheSnapshot,
    place: CachePlace,
    part: int,
    left: Sequence[Tensor],
    right: Sequence[Tensor],
) -> Divergence:
    """The first element that differs; ``left`` is what is expected."""
    a, b = left[part].reshape(-1), right[part].reshape(-1)
    where = torch.nonzero(differing(a, b))
    at = int(where[0]) if len(where) else 0
    x, y = a[at : at + 1], b[at : at + 1]
    finite = bool(torch.isfinite(x).all() and torch.isfinite(y).all())
    return Divergence(
        sequence=held.record.plan.members[place.sequence].id,
        position=place.position,
        token=None,
        column=at,
        reference=number(x),
        candidate=number(y),
        reference_bits=pattern(x),
        candidate_bits=pattern(y),
        ulps=int(ulps(x, y)[0]) if finite else None,
        reference_digest=_digest(left[part]),
        candidate_digest=_digest(right[part]),
        layer=place.layer,
        part=PARTS[part],
        name=None,
    )


def _digest(x: Tensor) -> str:
    return f"0x{int(row_digest(x.reshape(1, -1))) & (2**64 - 1):016x}"
