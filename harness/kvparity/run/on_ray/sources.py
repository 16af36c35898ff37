"""The source files that go to the nodes with a job: those of a pair that are the user's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kvparity.core.errors import UnsupportedError
from kvparity.run.kept import own_sources
from kvparity.run.on_ray.sent import SentSource
from kvparity_contracts.loader import LoadedContract

MOST_BYTES = 1 << 24
"""Of all together."""


def sources_of(loaded: LoadedContract) -> tuple[SentSource, ...]:
    """SentSource files of a pair, the Python files beside each, and ``__init__.py`` of the packages
    that they lie in.

    Raises:
        UnsupportedError: they are too large to be a pair's own.
    """
    base = Path(loaded.path).resolve().parent
    found = {path for own in own_sources(loaded) for path in _around(own.resolve(), base)}
    size = sum(path.stat().st_size for path in found)
    if size > MOST_BYTES:
        raise UnsupportedError(
            f"the Python files beside the subject's sources have {size} bytes, and at most "
            f"{MOST_BYTES} are sent to the nodes of Ray; put the pair into a folder of its own"
        )
    return tuple(SentSource(str(path), path.read_bytes()) for path in sorted(found))


def _around(own: Path, base: Path) -> Iterator[Path]:
    yield own
    yield from own.parent.glob("*.py")
    for folder in own.parents:
        if not folder.is_relative_to(base):
            return
        if (folder / "__init__.py").is_file():
            yield folder / "__init__.py"
