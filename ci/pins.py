"""Is what is installed what is pinned, and is everything pinned that is needed?

    python ci/pins.py ci/constraints.txt dev

Walks from the installed project and the extras named to everything that they need, and prints one
line for each distribution that has no pin on this Python, is missing, or has another version; exit
code 1 then. ``ci/setup.sh`` asks this of every environment that it makes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = "kvparity"

Environment = Mapping[str, str]
Installed = Callable[[str], "tuple[str, list[str]] | None"]
"""(version, requirements) of a distribution, None where it is not installed."""


def on(python: str) -> Environment:
    """This machine with another Python, as markers see it."""
    return {**default_environment(), "python_version": python, "python_full_version": f"{python}.1"}


def read(text: str, environment: Environment) -> dict[str, str]:
    """Pinned version by name, of the lines that hold in ``environment``.

    Raises ``ValueError`` for a line that pins nothing, or a name that is pinned twice.
    """
    pins: dict[str, str] = {}
    for line in filter(None, (line.partition("#")[0].strip() for line in text.splitlines())):
        pin = Requirement(line)
        name, exact = canonicalize_name(pin.name), [*pin.specifier]
        if len(exact) != 1 or exact[0].operator != "==" or "*" in exact[0].version:
            raise ValueError(f"{line!r} does not pin one version with ==")
        if pin.marker is None or pin.marker.evaluate(dict(environment)):
            if name in pins:
                raise ValueError(f"{name} is pinned twice: {pins[name]}, {exact[0].version}")
            pins[name] = exact[0].version
    return pins


def installed(name: str) -> tuple[str, list[str]] | None:
    """What importlib.metadata knows of a distribution."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    return found.version, found.requires or []


def reached(
    requirements: Iterable[str],
    environment: Environment,
    look: Installed = installed,
    further: Callable[[str, str], bool] = lambda name, version: True,
) -> Iterator[tuple[str, str | None]]:
    """(name, installed version) of everything that is needed, each once.

    What is not installed has no version, and needs nothing that could be seen. ``further(name,
    version)``: whether to go on to what this distribution needs.
    """
    seen: set[tuple[str, str]] = set()
    told: set[str] = set()
    todo = [(text, "") for text in requirements]
    while todo:
        text, extra = todo.pop()
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({**environment, "extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        found = look(name)
        if name not in told:
            told.add(name)
            yield name, found and found[0]
        for key in [(name, wants) for wants in ("", *requirement.extras)]:
            if found and key not in seen and further(name, found[0]):
                todo += [(needed, key[1]) for needed in found[1]]
            seen.add(key)


def findings(pins: Mapping[str, str], found: Iterable[tuple[str, str | None]]) -> list[str]:
    """A line for everything that is not as pinned. A local version (2.13.0+cpu) is the release."""
    lines = []
    for name, version in sorted(found):
        if name not in pins:
            lines.append(f"{name} is needed and has no pin on this Python")
        elif version is None:
            lines.append(f"{name} is needed and not installed; {pins[name]} is pinned")
        elif Version(version).public != Version(pins[name]).public:
            lines.append(f"{name} {version} is installed; {pins[name]} is pinned")
    return lines


def main(argv: list[str], look: Installed = installed) -> int:
    """Exit code 1 if something is not as pinned."""
    path, *extras = argv
    here = {**default_environment()}
    pins = read(Path(path).read_text(encoding="utf-8"), here)
    needed = reached([f"{PROJECT}[{','.join(extras)}]"], here, look)
    lines = findings(pins, (each for each in needed if each[0] != PROJECT))
    for line in lines:
        print(f"pins: {line}", file=sys.stderr)
    if lines:
        print(f"pins: ci/pin writes {path} anew", file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
