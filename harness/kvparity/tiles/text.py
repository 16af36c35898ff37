"""The table, what is in force, and a measurement, for people."""

from __future__ import annotations

from collections.abc import Sequence

from kvparity.core.columns import aligned
from kvparity.core.versions import lines as outside_line
from kvparity.tiles.check import TilesCheck
from kvparity.tiles.document import Measurement
from kvparity.tiles.force import TilesInForce
from kvparity_kernels.rules import PATH, Rule

_HEAD = ("row", "arch", "Triton", "dtype", "choice", "equal", "device", "evidence")


def table(found: Sequence[Rule]) -> str:
    """The packaged table."""
    if not found:
        return f"No row in {PATH.name}: no device has been measured."
    lines = [
        (
            str(n),
            r.arch,
            r.triton,
            r.dtype,
            r.choice,
            "yes" if r.equal else "no",
            r.device,
            r.evidence,
        )
        for n, r in enumerate(found, 1)
    ]
    return "\n".join(aligned([_HEAD, *lines], indent="  "))


def predictions(rows: Sequence[tuple[str, ...]]) -> str:
    """What compiled code and the model say of choices; nothing of it is in force."""
    head = ("arch", "Triton", "dtype", "choice", "predicted", "by")
    return "\n".join(
        [
            "Predicted, not in force (no device was asked; settle it with --measure):",
            *aligned([head, *rows], indent="  "),
        ]
    )


def here(found: TilesInForce, device: str) -> str:
    """What is in force on a device."""
    where = f"{found['arch']}, Triton {found['triton']}: " if found["arch"] else ""
    return f"In force on {device}: {where}{found['words']}"


def checked(found: TilesCheck, device: str) -> str:
    """A check that found nothing wrong."""
    words = found.tiles["words"]
    if found.verdict == "base":
        return f"BASE: {words}; nothing to check on {device}"
    return f"HOLDS: the rows in force on {device} give the bits of the base; {words}"


def measured(found: Measurement) -> str:
    """Answers, and controls that failed their expected result."""
    lines = [f"{found.verdict.upper()} on {found.environment['device_name']}"]
    lines += outside_line(found.environment)
    for control in found.controls:
        if not control.good:
            lines.append(f"  control {control.name} in {control.dtype}: {control.seen}")
    rows = []
    for answer in found.answers:
        more = answer.error or answer.first or f"{answer.compared} numbers compared"
        more = more.splitlines()[0][:120]
        rows.append((answer.dtype, answer.choice, answer.answer, more))
    return "\n".join([*lines, *aligned(rows, indent="  ")])
