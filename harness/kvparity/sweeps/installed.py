"""What an environment really has: asked of its interpreter, where a cell gave no report."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from kvparity.core.versions import versions

_LIMIT_S = 300.0
_ASK = """\
import importlib, json, platform, sys
found, lacks = {"python": platform.python_version()}, []
for name in sys.argv[1:]:
    try:
        from importlib import metadata
        found[name] = metadata.version(name)
    except Exception:
        found[name] = None
for name in ("kvparity", "torch"):
    try:
        found[name] = importlib.import_module(name).__version__
    except Exception as error:
        own = isinstance(error, ImportError) and getattr(error, "name", None) == name
        said = "%s: %s" % (type(error).__name__, error)
        lacks.append("has no " + name if own else "cannot import %s (%s)" % (name, said))
print()
print(json.dumps([found, " and ".join(lacks) or None]))
"""
"""For any Python 3, with nothing installed. What is imported may print, before the last line."""


@dataclass(frozen=True)
class Installed:
    """Releases by package, Python's among them. ``lacks``: why nothing can be verified with them,
    such as ``has no torch``; None where the interpreter has what every verification needs."""

    packages: Mapping[str, str | None]
    lacks: str | None = None

    def __str__(self) -> str:
        there = [f"{name} {release}" for name, release in sorted(self.packages.items()) if release]
        return f"installed: {', '.join(there) or 'not known'}"


def installed(python: str, names: tuple[str, ...] = ()) -> Installed:
    """Of an interpreter: the packages that can decide bits, and those of ``names``."""
    asked = dict.fromkeys([*versions(), *names])
    try:
        ended = subprocess.run(
            [python, "-c", _ASK, *(name for name in asked if name != "python")],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        why = error.strerror if isinstance(error, OSError) else f"no answer in {_LIMIT_S:g} s"
        return Installed({}, f"does not run ({why})")
    return _read(ended.returncode, ended.stdout)


def _read(code: int, out: bytes) -> Installed:
    try:
        packages, lacks = json.loads(out.splitlines()[-1])
        return Installed({str(name): packages[name] for name in packages}, lacks)
    except (ValueError, TypeError, IndexError):
        return Installed({}, f"does not say what is installed (exit code {code})")
