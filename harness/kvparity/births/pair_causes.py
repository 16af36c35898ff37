"""Why two kernels of a pair part: what their rows, their caches and a plainer call show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from kvparity.births.causes import Cause
from kvparity.births.transplant import scaled
from kvparity.core.errors import UnsupportedError
from kvparity.record.cache_snapshot import CachePlace
from kvparity.record.path_run import PathRun
from kvparity.subjects.pair.subject import AttentionSubject
from kvparity_contracts.causes import CauseKind
from kvparity_contracts.paths import DECODE, PREFILL
from kvparity_kernels.attention import naive

FAR = 16.0
"""A side that is so many times as far off as the other is called the wrong one."""
ROUNDINGS = {torch.float32: 64.0}
"""By format, how many of its roundings a right row may be off, on average: sums of many terms round
once for each in float32."""
ONCE = 8.0
"""The same of a format of 16 bits, to which a result is rounded once."""
TENTH = 0.1
"""Both sides are wrong where both are off by this share of what float64 has."""
REACH = 8
"""Keys by which a mask or a window may be off: its ends are tried this far on both sides."""


@dataclass(frozen=True)
class Wrong:
    """A row that is not only otherwise rounded: of ``side``, sequence number and position.

    ``row``: its values, ``exact``: float64's; both ``[width]``. ``name``: what the side is called.
    """

    side: PathRun
    sequence: int
    position: int
    row: Tensor
    exact: Tensor
    name: str


def pair_of(side: PathRun) -> AttentionSubject:
    """The pair as the contract has it."""
    subject = side.setting.subject
    assert isinstance(subject, AttentionSubject)  # rows of others are logits
    return subject


def distance(pair: AttentionSubject, rows: Tensor, exact: Tensor) -> float:
    """How far rows ``[..., width]`` are from float64's, in what right rows may be off.

    O and LSE each by the roundings of its format, as the root of the mean square: single elements
    of 16 bits are as far off by rounding as whole rows are by a key.
    """
    width, found = pair.heads.out, 0.0
    for columns, dtype in ((slice(width), pair.execution), (slice(width, None), torch.float32)):
        off, size = _sizes(rows[..., columns], exact[..., columns])
        unit = torch.finfo(dtype).eps * ROUNDINGS.get(dtype, ONCE)
        found = max(found, off / (unit * (size if dtype == pair.execution else max(size, 1.0))))
    return found


def wrong_side(pair: AttentionSubject, a: Tensor, b: Tensor, true: Tensor) -> int | None:
    """The side that is off: much farther than the other, or, where both are, the candidate."""
    off = distance(pair, a, true), distance(pair, b, true)
    low, high = min(off), max(off)
    if high > 1 and high > FAR * low:
        return off.index(high)
    return 1 if far_off(a, true) and far_off(b, true) else None


def far_off(rows: Tensor, exact: Tensor) -> bool:
    """Whether rows are off by a tenth of what float64 has."""
    off, size = _sizes(rows, exact)
    return off > TENTH * size


def _sizes(rows: Tensor, exact: Tensor) -> tuple[float, float]:
    """Roots of the mean squares of the error, and of what is exact (no column: 0 and 1)."""
    if not exact.numel():
        return 0.0, 1.0
    true = exact.nan_to_num(0.0, 0.0, 0.0)
    # An LSE of a row without a key is -inf on both sides.
    error = torch.where(rows.double() == exact, 0.0, rows.double() - exact)
    return _root(error.nan_to_num(torch.inf, torch.inf, torch.inf)), max(_root(true), 1e-30)


def _root(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def fault_cause(subject: object, fault: str) -> Cause:
    """Of rows without a key, which nobody compares, or of what was written beside its slots."""
    if not isinstance(subject, AttentionSubject):
        return Cause("unknown", fault)
    if subject.pair.append is not None and fault.startswith(subject.pair.append.name):
        return Cause("memory", fault, "cache")
    if subject.given_out:
        words = "NaN, which its output held before the call, so nothing wrote it"
        return Cause("memory", f"{fault}: {words}")
    return Cause("mask or window", f"{fault}: a row that sees no key must be fully masked")


def wrong_cause(found: Wrong) -> Cause:
    """Of a row that is wrong: each sign is looked for until one is seen."""
    wrong = f"{found.name} is wrong, not only rounded differently:"
    if bool(found.row.isnan().any()):
        return Cause("memory", f"{wrong} it gave NaN, which only memory that is not its own holds")
    if _empty(found):
        return Cause("memory", f"{wrong} it left rows 0, as if they saw no key: not computed")
    held = _held_otherwise(found)
    if held is not None:
        kind, words = held
        return Cause(kind, f"{wrong} {words}", "cache")
    if _right_alone(found):
        words = "its row is right in a separate call, so it depends on what is beside it"
        return Cause("memory", f"{wrong} {words}")
    seen = _other_keys(found)
    if seen is not None:
        row = f"its row at position {found.position} is as if it saw"
        words = f"{row} keys {seen.start} to {seen.stop - 1}, and no others"
        return Cause("mask or window", f"{wrong} {words}")
    words = "no range of its keys reproduces its result: another key, scale or bias"
    return Cause("unknown", f"{wrong} {words}")


def _empty(found: Wrong) -> bool:
    """Whether O is 0 where float64's is not."""
    width = pair_of(found.side).heads.out
    return not bool(found.row[:width].any()) and bool(found.exact[:width].any())


def _held_otherwise(found: Wrong) -> tuple[CauseKind, str] | None:
    """What the cache holds, beside what was written to it."""
    try:
        kept = found.side.take_snapshot()
    except UnsupportedError:
        return None
    off = (kept.held != kept.written).any(-1) & kept.is_held & kept.is_written & kept.needed
    if not bool(off.any()):
        return None
    layer, row = torch.nonzero(off)[0].tolist()
    sequence, position = kept.index[row]
    place = CachePlace(layer, sequence, position)
    read, written = found.side.take_snapshot(frozenset({place})).values[place]
    parts = [
        scaled(a.double().flatten(), b.double().flatten())
        for a, b in zip(written, read, strict=True)
    ]
    where = f"its cache holds position {position} of {found.side.plan.members[sequence].id}"
    if all(parts):
        return "store", f"{where} in another format or scale than it was written in"
    return "memory", f"{where} with different bits than were written there"


def _right_alone(found: Wrong) -> bool:
    """Whether the same row is right where its sequence is alone, in memory of its own."""
    side, subject = found.side, found.side.subject
    if isinstance(subject, AttentionSubject):
        subject = replace(subject, strided=False, empties=False)
    decodes = any(span.decode for step in side.plan.schedule for span in step)
    path = side.path if side.path.kind == "verify" else DECODE if decodes else PREFILL
    part = side.plans.part((found.sequence,), side.prompts.generate)
    alone = PathRun(side.setting, subject, part, path, [side.tokens[found.sequence]])
    record = alone.run()
    row = record.values[record.index.index((0, found.position))].cpu().double()
    return distance(pair_of(side), row, found.exact) <= 1


def _other_keys(found: Wrong) -> range | None:
    """A range of the sequence's keys, other than the row's, that gives what it gave."""
    model, member = pair_of(found.side), found.side.plan.members[found.sequence]
    q, k, v = model.stored(member, range(member.length))
    terms = {name: each for name, each in vars(model.terms()).items() if each is not None}
    if terms.keys() & {"alibi_slopes", "bias"}:
        return None  # these follow the distance of a key, which another range changes
    for keys in _ranges(found.position, len(k), model.window):
        out, lse = naive.attend(
            q[found.position : found.position + 1], k[keys.start : keys.stop],
            v[keys.start : keys.stop], scale=model.scale, softcap=model.softcap, **terms,
        )  # fmt: skip
        row = torch.cat([out.flatten(), lse.flatten()])[: len(found.row)].cpu()
        if distance(model, found.row, row) <= 1:
            return keys
    return None


def _ranges(position: int, length: int, window: int) -> Iterator[range]:
    own = max(0, position + 1 - window) if window else 0
    firsts = sorted({0, *range(max(0, own - REACH), own + REACH + 1)})
    lasts = sorted(
        {length, *range(max(1, position + 1 - REACH), min(length, position + 1 + REACH) + 1)}
    )
    for first, stop in product(firsts, lasts):
        if first < stop and (first, stop) != (own, position + 1):
            yield range(first, stop)
