"""What kvparity relies on in other libraries beyond their documentation, one file for each library.

Private names of a library are written in its file and nowhere else, and so are both names of
something that moved. Imports none of them: each thing is looked up when it is first needed, and
where it is gone that is said in words.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from importlib import import_module, metadata
from typing import Any

from kvparity_kernels.versions import TESTED


class GoneError(Exception):
    """A library no longer has what kvparity relies on; says what, and what for. Exit code 3."""


_NOTHING = object()


@dataclass(frozen=True)
class ReliedItem:
    """One thing of a library that is not in its documentation.

    ``names`` are where it may stand, the newest first, each ``module:attribute.attribute``.
    ``use`` completes "which kvparity uses to ...". ``takes`` are the parameters that a function
    must have, in order, where kvparity stands in for it or names them.
    """

    library: str
    names: tuple[str, ...]
    use: str
    takes: tuple[str, ...] | None = None

    def get(self) -> Any:
        """The thing itself.

        Raises:
            GoneError: it stands under none of its names, or takes other parameters.
        """
        found = self.find()
        if found is None:
            raise self.gone(" or ".join(f"`{_plain(name)}`" for name in self.names))
        if self.takes is not None and (has := parameters(found)) != self.takes:
            raise GoneError(
                f"{_named(self.library)} has `{_plain(self.names[0])}`, which kvparity uses to "
                f"{self.use}, with the parameters ({', '.join(has or ())}) instead of "
                f"({', '.join(self.takes)}); {tested(self.library)}"
            )
        return found

    def find(self) -> Any:
        """As :meth:`get`, None where it is gone; its parameters are not looked at."""
        for name in self.names:
            module, _, path = name.partition(":")
            try:
                found = reduce(getattr, path.split("."), import_module(module))
            except (ImportError, AttributeError):
                continue
            return found
        return None

    def gone(self, what: str) -> GoneError:
        """The error that says that ``what`` is gone."""
        return gone(self.library, what, self.use)

    def of(self, thing: Any) -> Any:
        """The attribute of ``thing`` that is called as this item, under whichever name it has.

        Raises:
            GoneError: it has none of them.
        """
        attributes = [name.rpartition(".")[2].rpartition(":")[2] for name in self.names]
        for attribute in attributes:
            found = getattr(thing, attribute, _NOTHING)
            if found is not _NOTHING:
                return found
        names = " or ".join(f"`{name}`" for name in attributes)
        raise self.gone(f"{names} of {type(thing).__name__}")


@contextmanager
def needed(library: str, what: str, use: str) -> Iterator[None]:
    """Around an import of ``what``: where it fails, a ``GoneError`` says so."""
    try:
        yield
    except ImportError as error:
        raise gone(library, what, use) from error


def gone(library: str, what: str, use: str) -> GoneError:
    """The error that says that ``what`` of ``library``, used to ``use``, is gone."""
    return GoneError(
        f"{_named(library)} no longer has {what}, which kvparity uses to {use}; {tested(library)}"
    )


def tested(library: str) -> str:
    """``tested with 4.57 to 5.24``."""
    return f"tested with {TESTED[library]}"


def parameters(function: Any) -> tuple[str, ...] | None:
    """The names of the parameters of a function; None of what is none, or keeps them to itself."""
    try:
        return tuple(inspect.signature(function).parameters) if callable(function) else None
    except ValueError:  # some written in C
        return None


def _named(library: str) -> str:
    try:
        return f"{library} {metadata.version(library)}"
    except metadata.PackageNotFoundError:
        return library


def _plain(name: str) -> str:
    return name.replace(":", ".")
