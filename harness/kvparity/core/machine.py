"""What this process may use of its machine: cores and memory, as the kernel and cgroups limit them.

A container or a batch system limits a group of processes, and groups lie in each other: what holds
is the smallest limit on the way up. Both versions of cgroups are read, as files below ``root``
(https://docs.kernel.org/admin-guide/cgroup-v2.html, and ``cgroup-v1/memory.html`` beside it).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

GIB = 1 << 30
ROOT = Path("/")
_UNLIMITED = 1 << 60
"""Bytes: version 1 writes a number near 2^63 where there is no limit."""


@dataclass(frozen=True)
class Cores:
    """How many processes may compute at once, and by what: words, such as ``cpu.max``."""

    count: int
    by: str


@dataclass(frozen=True)
class FreeMemory:
    """Bytes that may still be used, and by what: ``the machine``, or the limit of a cgroup."""

    bytes: int
    by: str


@dataclass(frozen=True)
class _Group:
    """One cgroup, as a folder. ``version``: 1 or 2."""

    folder: Path
    version: int


def cores(root: Path = ROOT) -> Cores:
    """The cores that this process may use: by its affinity, the cpusets and the quotas above it.

    A quota of a part of a core counts as whole cores, rounded down, at least one: the kernel makes
    everything wait that is beyond it.
    """
    found = [Cores(_affinity(), "cores")]
    for group in _groups(root, "cpuset"):
        name = "cpuset.cpus.effective" if group.version == 2 else "cpuset.effective_cpus"
        if allowed := _listed(_read(group.folder / name)):
            found.append(Cores(allowed, f"{name} of {group.folder}"))
    for group in _groups(root, "cpu"):
        if group.version == 2:
            quota, _, period = _read(group.folder / "cpu.max").partition(" ")
            name = "cpu.max"
        else:
            name = "cpu.cfs_quota_us"
            quota, period = (_read(group.folder / each) for each in (name, "cpu.cfs_period_us"))
        if quota.isdigit() and period.isdigit() and int(period):
            whole = max(1, int(quota) // int(period))
            found.append(Cores(whole, f"{name} of {group.folder}"))
    return min(found, key=lambda each: each.count)


def _affinity() -> int:
    """By the scheduler; Python 3.13 also knows of ``PYTHON_CPU_COUNT``."""
    counted = getattr(os, "process_cpu_count", None)
    return (counted() if counted is not None else len(os.sched_getaffinity(0))) or 1


def free_memory(root: Path = ROOT) -> FreeMemory | None:
    """What may still be used without swapping or being killed; None where nothing tells.

    Of a group: its limit less what it uses, where files that the kernel can drop do not count.
    """
    found = []
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            found.append(FreeMemory(int(value.split()[0]) << 10, "the machine"))
    for group in _groups(root, "memory"):
        names = ("memory.max", "memory.high") if group.version == 2 else ("memory.limit_in_bytes",)
        for name in names:
            limit = _read(group.folder / name)
            if limit.isdigit() and int(limit) < _UNLIMITED:
                left = max(0, int(limit) - _used(group))
                found.append(FreeMemory(left, f"{name} of {group.folder}"))
    return min(found, key=lambda each: each.bytes, default=None)


def oom_kills(root: Path = ROOT) -> dict[str, int]:
    """By the file that counts them, how many processes the kernel killed for want of memory.

    Those of this process's group and the groups above it, and of the whole machine.
    """
    found = {}
    files = [root / "proc/vmstat"]
    for group in _groups(root, "memory"):
        files.append(
            group.folder / ("memory.events" if group.version == 2 else "memory.oom_control")
        )
    for file in files:
        for line in _read(file).splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill" and count.isdigit():
                found[str(file)] = int(count)
    return found


def peak_of(pid: int, root: Path = ROOT) -> int:
    """The most bytes of memory that a process has held; 0 where that is not known."""
    for line in _read(root / f"proc/{pid}/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0


def gib(size: int) -> str:
    """Bytes in words."""
    return f"{size / GIB:.1f} GiB"


def _used(group: _Group) -> int:
    """Bytes that a group holds and the kernel cannot simply drop."""
    current = "memory.current" if group.version == 2 else "memory.usage_in_bytes"
    dropped = "inactive_file" if group.version == 2 else "total_inactive_file"
    used = _read(group.folder / current)
    if not used.isdigit():
        return 0
    for line in _read(group.folder / "memory.stat").splitlines():
        name, _, size = line.partition(" ")
        if name == dropped:
            return max(0, int(used) - int(size))
    return int(used)


def _groups(root: Path, controller: str) -> Iterator[_Group]:
    """The groups of this process under a controller, its own first, up to the last that is seen."""
    own = dict[str, str]()
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        own |= dict.fromkeys(controllers.split(","), path)
    for line in _read(root / "proc/self/mountinfo").splitlines():
        head, _, tail = line.partition(" - ")
        kind, _, options = tail.partition(" ")
        version = {"cgroup": 1, "cgroup2": 2}.get(kind, 0)
        names = options.rpartition(" ")[2].split(",") if version == 1 else [""]
        if not version or (version == 1 and controller not in names):
            continue
        group = own.get(controller if version == 1 else "")
        if group is None:
            continue
        top, mounted = head.split(" ")[3:5]
        place, inner = root / mounted.lstrip("/"), PurePosixPath(group)
        # Of a container a mount may show a part only, or the group may lie outside of it.
        seen = inner.is_relative_to(top) and ".." not in inner.parts
        below = place / inner.relative_to(top) if seen else place
        for folder in (below, *below.parents):
            yield _Group(folder, version)
            if folder == place:
                break


def _listed(text: str) -> int:
    """How many cores a list such as ``0-3,8`` names."""
    count = 0
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if not first.isdigit():
            return 0
        count += int(last or first) - int(first) + 1
    return count


def _read(file: Path) -> str:
    """The text of a file of the kernel; empty where there is none, or it may not be read."""
    try:
        return file.read_text().strip()
    except (OSError, ValueError):
        return ""
