"""Any recording, chosen by its content: never guessed, never a part dropped in silence."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from kvparity.rollouts.anomalies import Anomalies
from kvparity.rollouts.check import Checker
from kvparity.rollouts.documents import Documents, documents
from kvparity.rollouts.layouts import batches, engines, lacking, prime_rl, slime
from kvparity.rollouts.layouts.base import FileLayout, Foreign, parsed
from kvparity.rollouts.native import FORMAT, VERSION, Header, RolloutLine, is_header
from kvparity.rollouts.native import raw as native_raw
from kvparity.rollouts.record import FilePlace, RawRollout, Rollout, RolloutError
from kvparity_contracts.json_types import JsonObject

LAYOUTS = (*prime_rl.LAYOUTS, *slime.LAYOUTS, *batches.LAYOUTS, *engines.LAYOUTS)


def read_rollouts(
    path: str | Path, anomalies: Anomalies | None = None, vocabulary: int | None = None
) -> Iterator[Rollout]:
    """The sequences of a recording, one after the other. JSON Lines are not held in memory.

    ``anomalies`` collects what is unusual (missing logprobs, stored zeros, …), ``vocabulary``
    refuses ids that are not below it.

    Raises:
        RolloutError: while reading; the file is of no known layout, or of one that lacks ids or
            logprobs, or a sequence does not fit itself.
    """
    checker = Checker(anomalies if anomalies is not None else Anomalies(), vocabulary)
    seen: set[str] = set()
    for raw in _raw(Path(path), checker.anomalies):
        if raw.sequence in seen:
            raise RolloutError(f"{raw.at}: sequence {raw.sequence} is there twice")
        seen.add(raw.sequence)
        yield checker.rollout(raw)


def layout_of(path: str | Path) -> str:
    """The name of a recording's layout.

    Raises:
        RolloutError: as for :func:`read_rollouts`.
    """
    at, first = next(documents(Path(path)), (FilePlace(Path(path)), {}))
    return "RolloutWriter" if is_header(first) else _chosen(first, at).name


def _raw(path: Path, anomalies: Anomalies) -> Iterator[RawRollout]:
    found = documents(path)
    first = next(found, None)
    if first is None:
        raise RolloutError(f"{path} holds no sequence")
    if is_header(first[1]):
        return _native(first, found)
    return _foreign(chain([first], found), _chosen(first[1], first[0]), anomalies)


class _FileVersion(Foreign):
    version: int


def _native(first: tuple[FilePlace, JsonObject], rest: Documents) -> Iterator[RawRollout]:
    at, header = first
    version = parsed(_FileVersion, header, at).version
    if version != VERSION:
        raise RolloutError(
            f"{at}: version {version} of {FORMAT}; this kvparity reads version {VERSION}"
        )
    parsed(Header, header, at)
    for place, document in rest:
        yield native_raw(parsed(RolloutLine, document, place), place)


def _foreign(found: Documents, layout: FileLayout, anomalies: Anomalies) -> Iterator[RawRollout]:
    for at, document in found:
        if not layout.fits(document) or layout.read is None:
            raise RolloutError(f"{at} is not of the layout of those before it, {layout.name}")
        yield from layout.read(document, at, anomalies)


def _chosen(document: JsonObject, at: FilePlace) -> FileLayout:
    fits = [layout for layout in LAYOUTS if layout.fits(document)]
    if len(fits) > 1:
        names = " and ".join(layout.name for layout in fits)
        raise RolloutError(f"{at} could be {names}; expected the fields of one layout alone")
    if fits:
        return fits[0]
    for layout in lacking.LAYOUTS:
        if layout.fits(document):
            raise RolloutError(f"{at} looks like {layout.name}: {layout.lacks}")
    keys = ", ".join(sorted(document)[:12]) or "no fields"
    raise RolloutError(
        f"{at} is of no layout that kvparity knows (fields: {keys}). Known are "
        f"{', '.join(layout.name for layout in LAYOUTS)}; or write it with "
        "kvparity.rollouts.RolloutWriter, as prompt_ids, response_ids and logprobs"
    )
