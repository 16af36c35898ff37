"""An account for people: where bits part, whether that is all, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kvparity.births.account import Account
from kvparity.births.causes import cause, first_birth
from kvparity.births.transplant import Birth
from kvparity.core.words import digits, rounded, some

SHOWN = 12
"""Operations that are listed."""


def lines(found: Account, reference: str, candidate: str) -> Iterator[str]:
    """The account, the first birth first."""
    why = cause(found)
    yield (
        f"{candidate} against {reference}: {found.differing} of {found.rows} compared rows differ; "
        f"{found.operations} operations were compared row by row"
    )
    if found.births:
        yield from _born(found, reference, candidate)
    yield f"cause: {why.kind}: {why.words}"


def _born(found: Account, reference: str, candidate: str) -> Iterator[str]:
    first = first_birth(found)
    yield (
        f"born in {first.operation}, sequence {first.sequence}, position {first.position}: inputs "
        f"are equal, {first.elements} of {first.of} elements differ by up to "
        f"{some(first.ulps, 'ulp')}"
    )
    yield (
        f"    element {first.column}: {reference} {digits(first.reference)}, "
        f"{candidate} {digits(first.candidate)}"
    )
    for name, ran in zip((reference, candidate), first.ran, strict=True):
        if ran:
            yield f"    {name} ran {_last(ran)}"
    all_of = "all operations" if found.whole else "operations so far"
    yield f"{all_of} that diverge by themselves, in the order of computation:"
    counts = found.by_operation()
    for operation in list(counts)[:SHOWN]:
        far = max(each.ulps for each in found.births if each.operation == operation)
        rows = some(counts[operation], "row")
        yield f"    {operation:<44} {rows:>9}, up to {some(far, 'ulp')}"
    if len(counts) > SHOWN:
        yield f"    and {len(counts) - SHOWN} more"
    yield _account(found, reference)


def _account(found: Account, reference: str) -> str:
    rows = f"these {len(found.births)} rows" if len(found.births) > 1 else "this one row"
    if found.complete:
        return (
            f"with {rows} replaced by {reference}'s, and nothing else, every compared row is equal"
        )
    if not found.differing:
        return f"no compared row differs, with or without {rows}"
    made = f"{found.equal} of {found.differing} rows that differ are equal"
    if found.explained is not None:
        made += f" and {rounded(100 * found.explained)} % of the distance between logprobs is gone"
    if found.others:
        made += f" ({some(found.others, 'other row')} diverge then)"
    words = f"with {rows} replaced by {reference}'s, {made}"
    if not found.whole:
        words = f"time ended before all were found; {words}"
    if found.left_out:
        words += f"; {some(found.left_out, 'row')} did not fit into memory: not looked at"
    return words


def _last(ran: Sequence[str]) -> str:
    """What computed the result; an operation of many operators by the last ones."""
    return ", ".join(ran[-3:])


def births_json(births: Sequence[Birth]) -> list[dict[str, object]]:
    """The births as JSON values."""
    return [
        {
            "operation": each.operation,
            "sequence": each.sequence,
            "position": each.position,
            "elements": each.elements,
            "of": each.of,
            "ulps": each.ulps,
            "column": each.column,
            "reference": digits(each.reference),
            "candidate": digits(each.candidate),
            "reference_ran": list(each.ran[0]),
            "candidate_ran": list(each.ran[1]),
        }
        for each in births
    ]


def account_json(found: Account) -> dict[str, object]:
    """The account as JSON values."""
    why = cause(found)
    return {
        "rows": found.rows,
        "differing_rows": found.differing,
        "operations": found.operations,
        "births": births_json(found.births),
        "still_differing_rows": found.still,
        "explained": found.explained,
        "explained_rows": found.mended,
        "time_ended": not found.whole,
        "left_out": found.left_out,
        "cause": {"kind": why.kind, "part": why.part, "words": why.words},
    }
