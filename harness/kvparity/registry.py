"""Subjects by kind: the project's own and those of other packages, through entry points."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

from kvparity.subject import Subject, SubjectError

GROUP = "kvparity.subjects"


def factory(kind: str) -> Callable[..., Subject]:
    """The ``build`` function of a subject kind.

    Raises:
        SubjectError: no package offers the kind, two do, or its module does not import.
    """
    found = list(entry_points(group=GROUP, name=kind))
    if not found:
        known = ", ".join(sorted(e.name for e in entry_points(group=GROUP)))
        raise SubjectError(
            f"no installed package offers subjects of kind {kind!r}; known are {known or 'none'} "
            "(is kvparity installed, not only on the path?)"
        )
    if len({entry.value for entry in found}) > 1:
        places = ", ".join(entry.value for entry in found)
        raise SubjectError(f"two packages offer subjects of kind {kind!r}: {places}")
    try:
        build: Callable[..., Subject] = found[0].load()
    except ImportError as error:
        raise SubjectError(
            f"subjects of kind {kind!r} need a package that does not import: {error}; "
            f"install kvparity[{kind}]"
        ) from error
    return build
