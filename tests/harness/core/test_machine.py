"""Cores and memory as cgroups limit them, from trees of files; and how many processes fit."""

from __future__ import annotations

import os
from pathlib import Path

import faults
import pytest

from kvparity.core import machine
from kvparity.core.errors import SubjectError
from kvparity.core.isolation import fit as fitting
from kvparity.core.isolation.fit import MemoryFit
from kvparity.core.isolation.pool import Apart, PoolTask
from kvparity.core.machine import GIB, FreeMemory, cores, free_memory, oom_kills
from kvparity.run import jobs as run_jobs
from kvparity.run.jobs import jobs_of

V2 = "30 20 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "\n".join(
    f"3{n} 20 0:3{n} {{top}} /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}"
    for n, name in enumerate(("memory", "cpu,cpuacct", "cpuset"))
)
NO_LIMIT = str(2**63 - 4096)


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_affinity", lambda: 8)


def tree(root: Path, own: str, mounts: str, **files: str) -> Path:
    """A root with what ``/proc`` says of this process, and files below ``/sys/fs/cgroup``."""
    texts = {
        "proc/self/cgroup": own,
        "proc/self/mountinfo": mounts,
        "proc/meminfo": "MemTotal: 67108864 kB\nMemAvailable: 33554432 kB\n",
    }
    for name, text in (texts | {f"sys/fs/cgroup/{k}": v for k, v in files.items()}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("own", "mounts", "files", "count", "free", "by"),
    [
        ("", "", {}, 8, 32, "the machine"),
        ("0::/a", V2, {"a/cpu.max": "max 100000", "a/memory.max": "max"}, 8, 32, "the machine"),
        # The smallest on the way up: the group's own limits are wider than those above it.
        (
            "0::/a/b",
            V2,
            {
                "a/b/cpu.max": "600000 100000", "a/cpu.max": "250000 100000",
                "../cpu.max": "100000 100000",  # above the mount: of no group
                "a/b/memory.max": str(8 * GIB), "a/b/memory.current": str(GIB),
                "a/memory.max": str(6 * GIB), "a/memory.current": str(4 * GIB),
            },
            2, 2, "memory.max",
        ),
        # What the kernel can drop is free; memory.high holds before memory.max.
        (
            "0::/a",
            V2,
            {
                "a/cpu.max": "50000 100000", "a/memory.max": str(8 * GIB),
                "a/memory.high": str(5 * GIB), "a/memory.current": str(4 * GIB),
                "a/memory.stat": f"anon 1\ninactive_file {3 * GIB}\nslab 2",
            },
            1, 4, "memory.high",
        ),
        ("0::/a", V2, {"a/cpuset.cpus.effective": "0-1,6"}, 3, 32, "the machine"),
        ("0::/../..", V2, {"cpu.max": "300000 100000"}, 3, 32, "the machine"),
        # Below a name with a colon; a mount of another kind has no groups.
        (
            "0::/a:b",
            f"29 20 0:25 / /sys/fs/cgroup/other rw - tmpfs tmpfs rw\n{V2}",
            {
                "a:b/cpu.max": "500000 100000", "other/a:b/cpu.max": "100000 100000",
                "a:b/memory.max": str(2 * GIB), "a:b/memory.current": str(3 * GIB),
            },
            5, 0, "memory.max",
        ),
        (
            "0::/a",
            V2,
            {
                "a/cpu.max": "100000", "cpu.max": "100000 0", "a/cpuset.cpus.effective": "x-1",
                "a/memory.max": str(2 * GIB), "a/memory.current": "1",
                "a/memory.stat": f"inactive_file {GIB}",
            },
            8, 2, "memory.max",
        ),
        (
            "4:memory:/d/x\n3:cpu,cpuacct:/d/x\n2:cpuset:/d/x",
            V1.format(top="/"),
            {
                "memory/d/x/memory.limit_in_bytes": NO_LIMIT,
                "memory/d/memory.limit_in_bytes": str(3 * GIB),
                "memory/d/memory.usage_in_bytes": str(2 * GIB),
                "memory/d/memory.stat": f"total_inactive_file {GIB}",
                "cpu,cpuacct/d/x/cpu.cfs_quota_us": "-1", "cpu,cpuacct/d/x/cpu.cfs_period_us": "1",
                "cpu,cpuacct/d/cpu.cfs_quota_us": "400000",
                "cpu,cpuacct/d/cpu.cfs_period_us": "100000",
                "cpuset/d/x/cpuset.effective_cpus": "0-6",
            },
            4, 2, "memory.limit_in_bytes",
        ),
        # A container that sees its part of the hierarchy alone: /d/x is mounted as the top.
        (
            "4:memory:/d/x/y",
            V1.format(top="/d/x"),
            {"memory/y/memory.limit_in_bytes": str(2 * GIB), "memory/memory.usage_in_bytes": "0"},
            8, 2, "memory.limit_in_bytes",
        ),
        (
            "4:memory:/e",
            V1.format(top="/d/x"),
            {"memory/memory.limit_in_bytes": str(3 * GIB)},
            8, 3, "memory.limit_in_bytes",
        ),
    ],
    ids=[
        "no cgroups", "no limits", "nested", "high", "cpuset", "outside of the namespace",
        "a colon", "half written", "v1", "container", "beside the container",
    ],
)  # fmt: skip
def test_the_smallest_limit_on_the_way_up_holds(
    own: str, mounts: str, files: dict[str, str], count: int, free: int, by: str, tmp_path: Path
) -> None:
    root = tree(tmp_path, own, mounts, **files)
    assert cores(root).count == count
    found = free_memory(root)
    assert found is not None
    assert (found.bytes / GIB, found.by.partition(" of ")[0]) == (free, by)


def test_this_machine_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 1 <= cores().count <= len(os.sched_getaffinity(0))
    found = free_memory()
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert found is not None
    assert 0 < found.bytes <= total
    assert 0 < machine.peak_of(os.getpid()) <= total


def test_kills_are_counted_by_the_group_and_by_the_machine(tmp_path: Path) -> None:
    events = "low 0\noom 1\noom_kill 2\noom_group_kill 9"
    root = tree(tmp_path, "0::/a", V2, **{"a/memory.events": events})
    (root / "proc/vmstat").write_text("nr_free_pages 7\noom_kill 5\nnuma_hit 9\n")
    assert {file.rpartition("/")[2]: count for file, count in oom_kills(root).items()} == {
        "vmstat": 5,
        "memory.events": 2,
    }


def test_kills_of_a_group_of_the_first_version_are_counted(tmp_path: Path) -> None:
    said = {"memory/a/memory.oom_control": "under_oom 0\noom_kill 3"}
    root = tree(tmp_path, "4:memory:/a", V1.format(top="/"), **said)
    assert list(oom_kills(root).values()) == [3]


def test_the_peak_of_a_process_is_in_bytes(tmp_path: Path) -> None:
    status = tmp_path / "proc/7/status"
    status.parent.mkdir(parents=True)
    status.write_text("VmPeak:\t    4096 kB\nVmHWM:\t    2048 kB\nVmRSS:\t     512 kB\n")
    assert (machine.peak_of(7, tmp_path), machine.peak_of(8, tmp_path)) == (2 << 20, 0)
    assert machine.gib(3 << 29) == "1.5 GiB"


def pids(fit: MemoryFit | None, jobs: int = 2) -> tuple[int, int]:
    """How many processes took four tasks, and how many the pool allowed in the end."""
    with Apart(jobs, 30, lambda what: None, fit=fit) as pool:
        found = set(pool.run([PoolTask(faults.work, ("pid",))] * 4))
        pool.finish()
    return len(found), pool.jobs


@pytest.mark.parametrize(
    ("free", "jobs", "words"),
    [
        (1 << 20, 1, "1 job: memory (0.0 GiB free by memory.max of /a, "),
        (64 * GIB, 2, ""),
    ],
)
def test_no_more_processes_start_than_fit_beside_the_first(
    free: int, jobs: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = MemoryFit(lambda: FreeMemory(free, "memory.max of /a"))
    monkeypatch.setattr(fitting, "STARTED", 1)  # so both may start, and one is ended again
    ran, allowed = pids(fit)
    assert allowed == jobs
    assert ran <= jobs
    assert fit.words.startswith(words)
    assert bool(fit.words) == bool(words)


@pytest.mark.parametrize(("free", "before", "after"), [(10, 3, 2), (4, 1, 1), (4000, 64, 64)])
def test_a_tenth_of_what_is_free_is_left_alone(free: int, before: int, after: int) -> None:
    fit = MemoryFit(lambda: FreeMemory(free * fitting.STARTED // 4, "the machine"))
    assert fit.before(64) == before
    assert fit.measured(2 * fitting.STARTED, 64) == after
    assert MemoryFit(lambda: None).measured(1, 64) == 64


@pytest.mark.parametrize(
    ("asked", "device", "kind", "words", "fits"),
    [
        (3, "cpu", "attention", "3 jobs: as asked for", False),
        (None, "cpu", "attention", "8 jobs: cores", True),
        (None, "cuda:1", "attention", "1 job: the default on a GPU", False),
        (3, "cpu", "sides", "1 job: one process keeps the logprobs of both sides", False),
    ],
)
def test_the_report_says_by_what_the_jobs_are_counted(
    asked: int | None, device: str, kind: str, words: str, fits: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(run_jobs, "cores", lambda: machine.Cores(8, "cores"))
    found = jobs_of(asked, device=device, kind=kind)
    assert (found.words(), found.fit is not None) == (words, fits)


@pytest.mark.parametrize(
    ("kills", "free", "words"),
    [
        ((0, 1), 64, " for want of memory (oom_kill rose in /a/memory.events; it held "),
        ((1, 1), 0, " GiB, and 0.0 GiB of memory.max of /a were free; use fewer --jobs): "),
        ((1, 1), 64, "was killed by SIGKILL (out of memory?): "),
    ],
    ids=["counted", "near the limit", "not known"],
)
def test_a_kill_for_want_of_memory_says_so(
    kills: tuple[int, int], free: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = iter(kills)
    monkeypatch.setattr(machine, "oom_kills", lambda: {"/a/memory.events": next(counted)})
    monkeypatch.setattr(machine, "free_memory", lambda: FreeMemory(free * GIB, "memory.max of /a"))
    with pytest.raises(SubjectError) as error, Apart(1, 30, lambda what: None) as pool:
        # Behind the first, what the process holds is looked at.
        list(pool.run([PoolTask(faults.work), PoolTask(faults.work, ("killed",))]))
    assert words in str(error.value)
