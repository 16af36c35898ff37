"""Subjects by kind: the project's own, and those of other packages through entry points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points

from kvparity.core.errors import SubjectError
from kvparity.subjects.base import Subject

GROUP = "kvparity.subjects"
# Named here and not by entry points, so that a checkout on the path needs no installation.
BUILT_IN: Mapping[str, str] = {
    "attention": "kvparity.subjects.pair.subject:build",
    "decoder": "kvparity.subjects.decoder.subject:build",
    "server": "kvparity.subjects.server.subject:build",
    "transformers": "kvparity.subjects.hf.subject:build",
}


def factory(kind: str) -> Callable[..., Subject]:
    """The ``build`` function of a subject kind.

    Raises:
        SubjectError: nobody offers the kind, two do (kvparity itself counts), or its module does
            not import.
    """
    entries = entry_points(group=GROUP)
    offers = {entry.value: entry for entry in entries if entry.name == kind}
    if kind in BUILT_IN:
        value = BUILT_IN[kind]
        offers.setdefault(value, EntryPoint(kind, value, GROUP))
    if not offers:
        known = ", ".join(sorted({*BUILT_IN, *(entry.name for entry in entries)}))
        raise SubjectError(
            f"nothing offers subjects of kind {kind!r}; known are {known} (is the package that "
            "offers it installed, not only on the path?)"
        )
    if len(offers) > 1:
        places = ", ".join(sorted(offers))
        raise SubjectError(f"subjects of kind {kind!r} are offered twice: {places}")
    (entry,) = offers.values()
    try:
        build: Callable[..., Subject] = entry.load()
    except ImportError as error:
        raise SubjectError(
            f"subjects of kind {kind!r} need a package that does not import: {error}; "
            f"install kvparity[{kind}]"
        ) from error
    return build
