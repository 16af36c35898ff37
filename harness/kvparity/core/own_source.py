"""What kvparity itself is made of: two installations of one version may have other files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import kvparity
import kvparity_contracts
import kvparity_kernels


def source_digest() -> str:
    """SHA-256 of the Python files of kvparity's packages and of their names."""
    return digest_of(
        Path(str(package.__file__)).parent
        for package in (kvparity, kvparity_kernels, kvparity_contracts)
    )


def digest_of(packages: Iterable[Path]) -> str:
    """The same of the packages in these folders."""
    found = hashlib.sha256()
    for top in packages:
        for path in sorted(top.rglob("*.py")):
            name = path.relative_to(top.parent).as_posix()
            found.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()
