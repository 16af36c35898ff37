"""The static profile as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from profile_limits import SOURCE
from profile_reading import Profile
from profile_work import ProgramWork

from kvparity.relations.audit.capture import Argument

HEAD = """# Static profile

What the compiler made of the kernels at the shapes of Qwen3-8B and Llama-3-8B (32 query heads, \
8 key heads of 128), read from the code. **No device was asked**: nothing here is a time, and \
blocks per multiprocessor and bytes per program are by calculation. Made by `{command}` with \
Triton {triton} and ptxas {ptxas}; all of it, constants included, is in \
[static-profile.json](static-profile.json).

Registers and spilled bytes are those of a thread, as the assembler counted them; shared memory is \
that of a block, threads too. *Blocks* is how many fit on one multiprocessor and what allows no \
more; limits: {source}. *Multiplies by*: the matrix instruction, and how many are in the code \
(executed more often, in loops); `fma` where there is none. *Copies*: instructions that copy to \
shared memory without waiting.
"""

FLAGGED = """## Flagged

A kernel that spills keeps what it has no registers for in memory; it is right, and slow. One that \
does not fit cannot be launched at all.
"""

PROGRAMS = """## Bytes and multiplications of one program, by calculation

*Useful* are the multiplications of rows that exist: a decode program has a row for each head of a \
group, of so many in its tile. A device whose tensor cores do r multiplications while one byte \
arrives is bound by memory where useful per byte is below r.
"""

COLUMNS = ("kernel", "registers", "spilled", "shared", "threads", "blocks", "multiplies by",
           "copies")  # fmt: skip
OF_PROGRAMS = ("kernel", "format", "one program", "bytes", "multiplications", "useful",
               "useful per byte")  # fmt: skip


class ProfileRow(Profile):
    """One kernel at the sizes of a model, with some tiles, in one format on one architecture."""

    kernel: str
    sizes: dict[str, int]
    model: str
    tiles: str
    dtype: str
    arch: str
    constants: dict[str, Argument]
    program: ProgramWork | None


class ProfileDocument(TypedDict):
    """What the study writes as JSON."""

    schema_version: int
    command: str
    device: None
    triton: str
    torch: str
    ptxas: dict[str, str]
    flagged: list[str]
    kernels: list[ProfileRow]


def page(document: ProfileDocument) -> str:
    """The whole page."""
    versions = ", ".join(sorted(set(document["ptxas"].values())))
    head = HEAD.format(
        command=document["command"], triton=document["triton"], ptxas=versions, source=SOURCE
    )
    parts = [head, FLAGGED, _flags(document)]
    rows = document["kernels"]
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        for arch in dict.fromkeys(row["arch"] for row in rows):
            chosen = [row for row in rows if (row["dtype"], row["arch"]) == (dtype, arch)]
            base = [row for row in chosen if row["tiles"] == "base"]
            parts.append(f"## {dtype}, {arch}\n")
            parts.append(_table(base))
            if other := [row for row in chosen if row["tiles"] != "base"]:
                parts.append("Other tiles, in force only where a device has allowed them:\n")
                parts.append(_table(other, tiles=True))
    parts += [PROGRAMS, _programs(rows)]
    return "\n".join(parts)


def _flags(document: ProfileDocument) -> str:
    """Each line once: a kernel may be the same at several shapes."""
    if not document["flagged"]:
        return "None.\n"
    return "\n".join(f"- {each}" for each in dict.fromkeys(document["flagged"])) + "\n"


def _name(row: ProfileRow) -> str:
    sizes = _sizes(row)
    return f"`{row['kernel']}`" + (f" {sizes}" if sizes else "")


def _sizes(row: ProfileRow) -> str:
    return ", ".join(f"{name} {value:,}" for name, value in row["sizes"].items())


def _table(rows: list[ProfileRow], *, tiles: bool = False) -> str:
    """A line for each kernel; one for all sizes at which the compiler made the same of it."""
    sizes: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        cells = (f"`{row['kernel']}`", *_facts(row))
        if tiles:
            cells = (f"`{row['tiles']}`", *cells)
        sizes.setdefault(cells, []).append(_sizes(row))
    lines = _head(("tiles", *COLUMNS) if tiles else COLUMNS)
    place = 1 if tiles else 0
    for cells, found in sizes.items():
        name = f"{cells[place]} {'; '.join(each for each in found if each)}".rstrip()
        lines.append(f"| {' | '.join((*cells[:place], name, *cells[place + 1 :]))} |")
    return "\n".join(lines) + "\n"


def _facts(row: ProfileRow) -> tuple[str, ...]:
    matrix = sum(row["matrix"].values())
    count = matrix or row["fma"]
    return (
        str(row["registers"]),
        str(row["spilled_bytes"]),
        f"{row['shared_bytes']:,}",
        str(row["threads"]),
        f"{row['blocks_per_sm']} ({row['bound_by']})",
        f"{row['multiplies_by']} × {count}" if count else "none",
        str(row["async_copies"]),
    )


def _head(names: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(names)} |", f"| {' | '.join('---' for _ in names)} |"]


def _programs(rows: list[ProfileRow]) -> str:
    lines = _head(OF_PROGRAMS)
    first = rows[0]["arch"] if rows else ""
    for row in rows:
        work = row["program"]
        if row["arch"] == first and row["tiles"] == "base" and work is not None:
            lines.append(
                f"| {_name(row)} | {row['dtype']} | {work['of']} | {work['bytes']:,} | "
                f"{work['multiplications']:,} | {work['useful']:,} | {work['useful_per_byte']} |"
            )
    return "\n".join(lines) + "\n"
