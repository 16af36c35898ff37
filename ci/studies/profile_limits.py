"""What one multiprocessor holds, and how many blocks of a kernel fit on it: by calculation alone.

Limits: CUDA C++ Programming Guide, "Compute Capabilities", technical specifications per compute
capability (registers, threads, blocks and shared memory of a multiprocessor; a block's shared
memory; 1 KiB of it kept by the system for each block). Registers are handed out in units of 256
for each warp, in four banks of a multiprocessor (CUDA Occupancy Calculator).
"""

from __future__ import annotations

from dataclasses import dataclass

WARP = 32
REGISTER_UNIT = 256  # for one warp
RESERVED_SHARED = 1024  # bytes of every block
SHARED_UNIT = 128
BANKS = 4  # of registers: a warp takes from one
SOURCE = (
    "CUDA C++ Programming Guide, Compute Capabilities, technical specifications; allocation units: "
    "CUDA Occupancy Calculator"
)


@dataclass(frozen=True)
class SmLimits:
    """One architecture. Bytes of shared memory, 32-bit registers."""

    shared: int
    block_shared: int
    registers: int = 65536
    threads: int = 2048
    blocks: int = 32


LIMITS = {
    "sm_80": SmLimits(164 << 10, 163 << 10),
    "sm_90": SmLimits(228 << 10, 227 << 10),
    "sm_100": SmLimits(228 << 10, 227 << 10),
}


@dataclass(frozen=True)
class Fit:
    """Blocks of one kernel on one multiprocessor, and what allows no more of them."""

    blocks: int
    bound: str

    def warps(self, threads: int) -> int:
        """Warps that are there at once."""
        return self.blocks * (threads // WARP)


def fit(arch: str, threads: int, registers: int, shared: int) -> Fit:
    """How many blocks of ``threads`` fit, with so many registers a thread and bytes a block."""
    limits, warps = LIMITS[arch], threads // WARP
    each = -(-registers * WARP // REGISTER_UNIT) * REGISTER_UNIT
    in_bank = limits.registers // BANKS // each
    taken = -(-(shared + RESERVED_SHARED) // SHARED_UNIT) * SHARED_UNIT
    allowed = {
        "registers": in_bank * BANKS // warps,
        "shared memory": limits.shared // taken if shared <= limits.block_shared else 0,
        "threads": limits.threads // threads,
        "blocks": limits.blocks,
    }
    bound = min(allowed, key=lambda name: allowed[name])
    return Fit(allowed[bound], bound)
