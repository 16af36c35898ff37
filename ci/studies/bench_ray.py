"""What Ray adds to a run of 2,000 small cases, beside the local pool on as many cores.

python ci/studies/bench_ray.py --out docs/results/ray-overhead.json

A tiny pair of plain torch: units of few tokens, ten cases each, one control. Both ways run in
turn, with as many processes as Ray has places (``--places``). Time is wall time and CPU time of the
command and of everything that computes for it: of processes of a subject, workers of Ray and the
driver; what the daemons of Ray (raylet, GCS) take is told apart. On a machine that does other work
meanwhile wall time says little: then the ratio of CPU time is the one to read. The driver's
resident memory is sampled once a second, and its last quarter compared with its second.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from study import ROOT

sys.path.insert(0, str(ROOT / "ci"))
from kill_subject import PAIR
from pydantic import JsonValue

TICK = os.sysconf("SC_CLK_TCK")
PATHS = "[decode, 'chunked(2)', 'chunked(3)', 'chunked(4)', batched, mixed, permuted]"
HEAD = f"""\
version: 1
name: small-cases
subject: {{kind: attention, prefill: 'pair.py:prefill', decode: 'pair.py:decode',
          heads: {{query: 2, kv: 1, dim: 4}}, empty: never, inputs: contiguous}}
numerics: {{execution: float32}}
checks:
  - {{name: bits, relation: invariance, paths: {PATHS}}}
  - {{name: right, relation: accuracy, limits: {{max_abs: 1.0e-5}}}}
controls: [stale-slot, wrong-input]
workloads:
"""


@dataclass
class Used:
    """CPU seconds by process, as last seen; samples of the driver's memory in MiB; ``computes``:
    processes that are no daemons; ``subjects``: of these, those that a subject runs in."""

    cpu: dict[int, float] = field(default_factory=dict)
    memory: list[float] = field(default_factory=list)
    computes: set[int] = field(default_factory=set)
    subjects: set[int] = field(default_factory=set)


def contract(cases: int, tokens: int) -> str:
    """As many workloads as give so many cases; ``tokens``: of the shorter prompts."""
    each = 8
    rows = (
        f"  - {{name: w{n:04d}, prompt_tokens: [{tokens + n % 4}, {tokens + 1}], generate: 4}}\n"
        for n in range(-(-cases // each))
    )
    return HEAD + "".join(rows)


def main() -> int:
    """Run both ways in turn, and write what they took."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--cases", type=int, default=2000)
    asked.add_argument("--tokens", type=int, nargs="*", default=[3, 200])
    asked.add_argument("--places", type=int, default=2)
    asked.add_argument("--turns", type=int, default=1)
    asked.add_argument("--out", type=Path)
    args = asked.parse_args()
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": args.places, "include_dashboard": False, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    sizes: list[dict[str, JsonValue]] = []
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            # What ci/kill_runs.py slows down on purpose, as fast as it is.
            plain = "\n".join(line for line in PAIR.splitlines() if "time.sleep" not in line)
            plain = plain.replace("keys, values = keys.flip(0), values.flip(0)", "pass")
            (folder / "pair.py").write_text(plain)
            for tokens in args.tokens:
                (folder / "contract.yaml").write_text(contract(args.cases, tokens))
                local, on_ray = [], []
                for _ in range(args.turns):
                    local.append(measured(folder, ["--jobs", str(args.places)]))
                    on_ray.append(measured(folder, ["--ray", cluster.address]))
                ratio = {
                    f"ray over local, {unit}": round(least(on_ray, unit) / least(local, unit), 3)
                    for unit in ("wall_s", "cpu_s")
                }
                sizes.append({"tokens of a prompt": tokens, "local": [*local], "ray": [*on_ray],
                              **ratio})  # fmt: skip
    finally:
        cluster.shutdown()
    document: dict[str, JsonValue] = {
        "command": f"python ci/studies/bench_ray.py --cases {args.cases} --places {args.places} "
        f"--turns {args.turns} --tokens {' '.join(map(str, args.tokens))}",
        "machine": {
            "cpus": os.cpu_count(), "platform": platform.platform(),
            "load_average_at_the_end": os.getloadavg()[0],
        },
        "versions": {name: metadata.version(name) for name in ("ray", "torch")}
        | {"python": platform.python_version()},
        "sizes": [*sizes],
    }  # fmt: skip
    text = json.dumps(document, indent=1) + "\n"
    print(text, end="")
    if args.out is not None:
        args.out.write_text(text)
    return 0


def least(turns: list[dict[str, JsonValue]], unit: str) -> float:
    """The least time of all turns."""
    return min(float(str(each[unit])) for each in turns)


def measured(folder: Path, more: list[str]) -> dict[str, JsonValue]:
    """One run: seconds, and the driver's memory."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    paths = [str(ROOT / name) for name in ("harness", "kernels", "contracts")]
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    began, before = time.monotonic(), cpu_of(os.getpid())
    process = subprocess.Popen(
        [sys.executable, "-m", "kvparity", "verify", "contract.yaml", "--device", "cpu",
         "--run-dir", "run", "--no-locate", *more],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    used, over = Used(dict(before)), threading.Event()
    watching = threading.Thread(target=watch, args=(process.pid, used, over))
    watching.start()
    _, said = process.communicate()
    wall = time.monotonic() - began
    over.set()
    watching.join()
    if process.returncode:
        sys.exit(f"ended with {process.returncode}: {said}")
    report = json.loads((folder / "run" / "run.json").read_text())
    spent = {pid: seconds - before.get(pid, 0.0) for pid, seconds in used.cpu.items()}
    working = sum(s for pid, s in spent.items() if pid in used.computes)
    subjects = [spent[pid] for pid in used.subjects]
    quarter = max(1, len(used.memory) // 4)
    return {
        "cases": sum(len(check["cases"]) for check in report["checks"]),
        "verdict": report["verdict"],
        "wall_s": round(wall, 1),
        "cpu_s": round(working, 1),
        "cpu_s_of_the_driver": round(spent.get(process.pid, 0.0), 1),
        "cpu_s_of_processes_of_the_subject": round(sum(subjects), 1),
        "processes_of_the_subject": len(subjects),
        "cpu_s_of_the_daemons_of_ray": round(sum(spent.values()) - working, 1),
        "driver_memory_mib": {
            "second quarter": round(statistics.median(used.memory[quarter : 2 * quarter]), 1),
            "last quarter": round(statistics.median(used.memory[-quarter:]), 1),
            "samples": len(used.memory),
        },
    }


def watch(driver: int, used: Used, over: threading.Event) -> None:
    """Look at all processes below this one until it is over."""
    last = 0.0
    while not over.wait(0.2):
        for pid, seconds in cpu_of(os.getpid()).items():
            used.cpu[pid] = seconds
            if pid not in used.computes and pid != os.getpid() and (pid == driver or works(pid)):
                used.computes.add(pid)
            # A process that was forked has its parent's command until its exec.
            if pid in used.computes and "core.isolation" in read(f"/proc/{pid}/cmdline"):
                used.subjects.add(pid)
        if time.monotonic() - last > 1:
            last = time.monotonic()
            for line in read(f"/proc/{driver}/status").splitlines():
                if line.startswith("VmRSS"):
                    used.memory.append(int(line.split()[1]) / 1024)


def works(pid: int) -> bool:
    """Whether it is a process of a subject, or a worker of Ray."""
    command = read(f"/proc/{pid}/cmdline")
    return any(word in command for word in ("core.isolation", "ray::", "default_worker"))


def cpu_of(top: int) -> dict[int, float]:
    """CPU seconds of a process and of all below it; Ray's are of sessions of their own."""
    parents, spent = {}, {}
    for pid, fields in stats():
        parents[pid] = int(fields[1])
        spent[pid] = (int(fields[11]) + int(fields[12])) / TICK
    found, new = {top}, {top}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new}
        found |= new
    return {pid: spent[pid] for pid in found if pid in spent and pid != top}


def stats() -> Iterator[tuple[int, list[str]]]:
    """The fields of /proc/PID/stat behind the name."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - five times a second
        if name.isdigit() and (text := read(f"/proc/{name}/stat")):
            yield int(name), text.rpartition(")")[2].split()


def read(name: str) -> str:
    """What a file of /proc holds; nothing where the process is gone."""
    try:
        return Path(name).read_text(errors="replace")
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
