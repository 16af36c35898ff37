"""Whether a node is as the run asks for, in words that follow its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

_ALIKE = (
    "python",
    "versions",
    "device_name",
    "triton_mode",
    "tf32",
    "reduced_precision_reduction",
    "threads",
    "numerics_device",
    "capability",
    "cuda",
)
"""Of an environment: what decides bits, and so must be one in a run. Operating systems may differ,
and which GPUs of a node are visible to a task does."""


def other_versions(wanted: Mapping[str, str | None], found: Mapping[str, str | None]) -> str | None:
    """How the versions of a node differ from the driver's, or None."""
    for name in sorted(wanted.keys() | found.keys()):
        here, there = wanted.get(name), found.get(name)
        if here != there:
            return (
                f"has {name} {there or 'not installed'}, and the driver has "
                f"{here or 'it not installed'}: one report cannot mix versions; install the same "
                "on every node"
            )
    return None


def other_source(wanted: str, found: str) -> str | None:
    """That a node has other files of kvparity itself than the driver, by their digests, or None."""
    if wanted == found:
        return None
    return (
        f"has other source files of kvparity (digest {found[:12]}) than the driver "
        f"({wanted[:12]}), under the same version: one report cannot mix sources; install the same "
        "on every node"
    )


def not_there(needs: Sequence[str]) -> str | None:
    """Which file or folder a node lacks, or None."""
    for path in needs:
        if not Path(path).exists():
            return (
                f"has no {path}: with --ray, checkpoints and other files of a subject must be "
                "readable at the same path on every node"
            )
    return None


def unlike(wanted: Mapping[str, object], found: Mapping[str, object]) -> str | None:
    """How the environment of a node differs from the run's, or None."""
    for key in _ALIKE:
        if wanted.get(key) != found.get(key):
            hint = "; --ray-accelerator asks for one kind of GPU" if key == "device_name" else ""
            return (
                f"has {key} {found.get(key)!r}, and the run has {wanted.get(key)!r}: one report "
                f"cannot mix results of two set-ups{hint}"
            )
    return None
