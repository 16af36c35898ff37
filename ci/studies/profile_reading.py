"""What a cubin says of the kernel in it: registers, stack, shared memory, and its instructions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypedDict

from profile_limits import WARP, fit

from kvparity.relations.audit.sass import Counts, counted, parse

_USAGE = re.compile(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
_KINDS = (  # of matrix instructions: in SASS, and what PTX calls them
    ("UTCHMMA", "tcgen05"),
    ("UTCQMMA", "tcgen05"),
    ("HGMMA", "wgmma"),
    ("HMMA", "mma.sync"),
)


@dataclass(frozen=True)
class Usage:
    """Per thread: 32-bit registers and bytes of stack, which hold what registers do not."""

    registers: int
    stack: int


@dataclass(frozen=True)
class Operations:
    """In the text, not executed. ``copies``: to shared memory, which the program does not wait for;
    ``loads``, ``stores``: of spilled registers.
    """

    counts: Counts
    copies: int
    loads: int
    stores: int

    @property
    def kind(self) -> str:
        """What multiplies: a kind of matrix instruction, ``fma``, or ``none``."""
        for prefix, name in _KINDS:
            if any(each.startswith(prefix) for each in self.counts.matrix):
                return name
        return "fma" if self.counts.fma else "none"


def usage(text: str) -> Usage:
    """Read ``cuobjdump --dump-resource-usage``. Raises ``ValueError`` without one kernel in it."""
    found = _USAGE.findall(text)
    if len(found) != 1:
        raise ValueError(f"{len(found)} kernels in what cuobjdump says; expected one")
    _, registers, stack, _, local = found[0]
    return Usage(int(registers), max(int(stack), int(local)))


def operations(text: str) -> Operations:
    """Count in the output of nvdisasm. Raises ``ValueError`` if it holds no instruction."""
    _, plain = counted(text)
    return Operations(
        counts=parse(text),
        copies=plain["LDGSTS"] + plain["UTMALDG"] + plain["UBLKCP"],
        loads=plain["LDL"],
        stores=plain["STL"],
    )


class Profile(TypedDict):
    """What is known of one compiled kernel, with the words of the document."""

    registers: int
    spilled_bytes: int
    spill_loads: int
    spill_stores: int
    shared_bytes: int
    threads: int
    blocks_per_sm: int
    warps_per_sm: int
    bound_by: str
    multiplies_by: str
    matrix: dict[str, int]
    fma: int
    async_copies: int
    flags: list[str]


def facts(arch: str, warps: int, shared: int, used: Usage, found: Operations) -> Profile:
    """The row of one kernel on one architecture, with what is wrong with it under ``flags``."""
    threads = warps * WARP
    fits = fit(arch, threads, used.registers, shared)
    flags = []
    if used.stack:
        flags.append(f"spills {used.stack} bytes a thread")
    if not fits.blocks:
        flags.append(f"does not fit: {fits.bound}")
    return {
        "registers": used.registers,
        "spilled_bytes": used.stack,
        "spill_loads": found.loads,
        "spill_stores": found.stores,
        "shared_bytes": shared,
        "threads": threads,
        "blocks_per_sm": fits.blocks,
        "warps_per_sm": fits.warps(threads),
        "bound_by": fits.bound,
        "multiplies_by": found.kind,
        "matrix": found.counts.matrix,
        "fma": found.counts.fma,
        "async_copies": found.copies,
        "flags": flags,
    }
