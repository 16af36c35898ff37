"""How many processes fit into memory, by what the first one held once it had loaded its subject."""

from __future__ import annotations

from collections.abc import Callable

from kvparity.core.machine import FreeMemory, free_memory, gib
from kvparity.core.words import some

STARTED = 400 << 20
"""Bytes that a process holds once it has imported torch and made its copy: measured on Linux."""
KEPT = 0.1
"""Of what is free: left alone, for what grows later."""


class MemoryFit:
    """Of processes that hold the same. ``free``: what may be used now."""

    def __init__(self, free: Callable[[], FreeMemory | None] = free_memory) -> None:
        self._free = free
        self.known = False
        self.words = ""
        """How many there are and why, where they are fewer than there might be; else empty."""

    def before(self, jobs: int) -> int:
        """How many may be started beside each other before any has loaded anything."""
        found = self._free()
        return jobs if found is None else min(jobs, 1 + self._usable(found) // STARTED)

    def measured(self, peak: int, jobs: int) -> int:
        """How many of ``jobs`` fit where one runs that has held ``peak`` bytes."""
        self.known = True
        found = self._free()
        if found is None or not peak:
            return jobs
        fits = min(jobs, 1 + self._usable(found) // peak)
        if fits < jobs:
            by = "" if found.by == "the machine" else f" by {found.by}"
            left = f"{gib(found.bytes)} free{by}, {gib(peak)} a worker"
            self.words = f"{some(fits, 'job')}: memory ({left})"
        return fits

    @staticmethod
    def _usable(found: FreeMemory) -> int:
        return int(found.bytes * (1 - KEPT))
