"""A cache of which few pages are touched, and whose offsets are beyond 2**31 elements.

A kernel that computes slot x stride in 32 bits is right in every cache that a test would allot. The
slots of this one lie so far apart that the last keys of the longest prompt are beyond 2**31
elements. The memory is anonymous and mapped without a reservation: the system gives it a page where
something is written, and what was never written reads as 0. So only the slots, and a band of poison
before and behind each, are written; the gaps between them hold no NaN.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.core.errors import UnsupportedError

BEYOND = 2**31
"""Elements that a signed offset of 32 bits does not reach."""


@dataclass(frozen=True)
class Spread:
    """How far slots lie apart: ``step`` elements at least.

    ``heads_first``: all slots of a head come before the next head.
    """

    step: int
    heads_first: bool

    def lay(self, whole: Tensor) -> tuple[Tensor, Tensor]:
        """Codes ``[slots, heads, width]``, laid out: a view of their shape, and what is touched.

        The second one is integers: the slots with their bands.

        Raises:
            UnsupportedError: the system does not map that much memory without a reservation.
        """
        slots, heads, width = whole.shape
        cells, cell = (heads, width) if self.heads_first else (1, heads * width)
        step = max(-(-self.step // cell), 3) * cell  # whole slots, as kernels ask for
        size = whole.element_size()
        memory = mapped(slots * cells * step * size)
        touched = memory.as_strided(
            (slots, cells, 3 * cell * size), (step * size, slots * step * size, 1)
        )
        touched.fill_(255)  # NaN in every float format
        over = slots * step if self.heads_first else width
        codes = memory.view(whole.dtype).as_strided(
            (slots, heads, width), (step, over, 1), storage_offset=cell
        )
        codes.copy_(whole)
        return codes, touched


def spread_for(longest_prompt: int, *, heads_first: bool) -> Spread:
    """So far that the last key of the longest prompt lies beyond 2**31 elements."""
    return Spread(-(-BEYOND // max(longest_prompt - 1, 1)), heads_first)


def mapped(size: int) -> Tensor:
    """``size`` bytes of zeros, uint8, of which none is touched yet.

    Raises:
        UnsupportedError: the system does not map that much memory without a reservation.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
    try:
        memory = mmap.mmap(-1, size, flags=flags)
    except (OSError, OverflowError, ValueError) as error:
        raise UnsupportedError(
            f"path far maps {size / 2**30:.0f} GiB of memory, of which it touches few pages, and "
            f"the system refuses ({error}); it takes Linux with vm.overcommit_memory 0 or 1 and no "
            "limit of the address space (ulimit -v)"
        ) from error
    if hasattr(mmap, "MADV_NOHUGEPAGE"):  # a huge page for each slot would be touched memory
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # named from Python 3.13 on; Linux's number
