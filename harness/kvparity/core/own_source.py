"""What kvparity itself is made of: two installations of one version may have other files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

_PACKAGES = ("kvparity", "kvparity_kernels", "kvparity_contracts")


def source_digest() -> str:
    """SHA-256 of the Python files of kvparity's packages and of their names."""
    specs = [find_spec(name) for name in _PACKAGES]  # imports none of them
    return digest_of(Path(str(spec.origin)).parent for spec in specs if spec is not None)


def digest_of(packages: Iterable[Path]) -> str:
    """The same of the packages in these folders."""
    found = hashlib.sha256()
    for top in packages:
        for path in sorted(top.rglob("*.py")):
            name = path.relative_to(top.parent).as_posix()
            found.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()
