"""What a cubin says of the kernel in it: registers, stack, shared memory, and its instructions."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from profile_limits import WARP, fit

from kvparity.relations.audit.sass import counted

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
    """In the text, not executed. ``matrix``: by full name; ``copies``: to shared memory, which the
    program does not wait for; ``loads``, ``stores``: of spilled registers.
    """

    matrix: Mapping[str, int]
    fma: int
    copies: int
    loads: int
    stores: int

    @property
    def kind(self) -> str:
        """What multiplies: a kind of matrix instruction, ``fma``, or ``none``."""
        for prefix, name in _KINDS:
            if any(each.startswith(prefix) for each in self.matrix):
                return name
        return "fma" if self.fma else "none"


def usage(text: str) -> Usage:
    """Read ``cuobjdump --dump-resource-usage``. Raises ``ValueError`` without one kernel in it."""
    found = _USAGE.findall(text)
    if len(found) != 1:
        raise ValueError(f"{len(found)} kernels in what cuobjdump says; expected one")
    _, registers, stack, _, local = found[0]
    return Usage(int(registers), max(int(stack), int(local)))


def operations(text: str) -> Operations:
    """Count in the output of nvdisasm. Raises ``ValueError`` if it holds no instruction."""
    found, plain = counted(text)
    prefixes = tuple(prefix for prefix, _ in _KINDS)
    return Operations(
        matrix={n: c for n, c in sorted(found.items()) if n.startswith(prefixes)},
        fma=plain["FFMA"] + 2 * plain["FFMA2"],
        copies=plain["LDGSTS"] + plain["UTMALDG"] + plain["UBLKCP"],
        loads=plain["LDL"],
        stores=plain["STL"],
    )


def texts(cubin: bytes, cuobjdump: str, nvdisasm: str) -> tuple[str, str]:
    """(resource usage, SASS) of a cubin, by these two programs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)

        def said(*command: str) -> str:
            return subprocess.run(
                [*command, str(path)], capture_output=True, text=True, check=True
            ).stdout

        return said(cuobjdump, "--dump-resource-usage"), said(nvdisasm, "-c", "-ndf")


def facts(arch: str, warps: int, shared: int, used: Usage, found: Operations) -> dict[str, object]:
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
        "matrix": dict(found.matrix),
        "fma": found.fma,
        "async_copies": found.copies,
        "flags": flags,
    }
