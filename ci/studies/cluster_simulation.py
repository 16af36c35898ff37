"""10,000 cases on 256 GPUs: what the driver takes, the size of the evidence, the first red case.

    python ci/studies/cluster_simulation.py            writes docs/results/cluster-simulation.json
    python ci/studies/cluster_simulation.py --stdout   print it, write nothing

No node computes anything. The driver is the real one: ``verify`` with its plan, its one writer of
evidence (that of Ray), its checks of the evidence and its report. It is fed the ends of tasks in
the order of a simulated clock. The lines are those of a small real run, under other names. Each end
takes the driver as much time as its CPU took, and a GPU goes on when the driver has heard of its
end. The same simulation of the small run itself is set beside that run.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from study import ROOT

import kvparity
from kvparity.core.environment import environment, versions
from kvparity.core.isolation.pool import Apart, Pool, PoolTask, Tell
from kvparity.plan.cases import ControlRun, Unit
from kvparity.report.lines import FreshRows
from kvparity.report.run_dir import Evidence
from kvparity.run import verify as driver
from kvparity.run import worker
from kvparity.run.jobs import Jobs
from kvparity.run.on_ray.gathered import Gathered, Undertaken, task_of
from kvparity.run.on_ray.sent import NodeAbout, SentPart
from kvparity.run.pools import Locally, Pools
from kvparity.run.worker import Job
from kvparity_contracts.loader import load

OUT = ROOT / "docs/results/cluster-simulation.json"
PATHS = ["decode", "batched", "permuted", "mixed", "uniform"]
PATHS += [f"chunked({n})" for n in range(1, 9)] + [f"verify({n})" for n in range(2, 9)]
PAIR = "kvparity.labs.defect_matrix.plain_pair"
SMALL, SMALL_JOBS = 12, 2
LARGE, GPUS = 500, 256
UNIT_S = (6.0, 60.0, 600.0)
"""Seconds that a GPU takes for 20 cases: assumed, from small kernels to long contexts."""
RECHECK = 0.05
"""Of a unit's time: rows of one side that are computed again, of two that take a tenth of all."""
RED = (1, 10, 100)
"""Of all cases, at places that are drawn: when is the first of them written?"""
DRAWS = 200


def contract(folder: Path, workloads: int) -> Path:
    """A pair of kernels over so many equal workloads, 20 paths each."""
    whole = {
        "version": 1, "name": "simulated",
        "subject": {
            "kind": "attention", "prefill": f"{PAIR}:prefill", "decode": f"{PAIR}:decode",
            "heads": {"query": 4, "kv": 2, "dim": 16},
        },
        "numerics": {"execution": "float32"},
        "workloads": [
            {"name": f"w{n:04d}", "prompt_tokens": [5, 9, 14], "generate": 3}
            for n in range(workloads)
        ],
        "checks": [{"name": "same", "relation": "invariance", "paths": PATHS}],
        "controls": ["stale-slot"],
    }  # fmt: skip
    (file := folder / f"simulated-{workloads}.json").write_text(json.dumps(whole))
    return file


@dataclass
class Template:
    """Lines of one unit and of the controls of a real run, and how long they took."""

    unit: str
    workload: str
    paths: list[dict[str, Any]]
    cases: dict[str, dict[str, Any]]
    ended: dict[str, Any]
    controls: dict[str, dict[str, Any]]
    seconds: list[float]

    @classmethod
    def of(cls, run: Path) -> Template:
        """Of the first unit of a run."""
        files = {name: [json.loads(line) for line in (run / f"{name}.jsonl").open()]
                 for name in ("paths", "cases", "units", "controls")}  # fmt: skip
        first = files["units"][0]
        name = first["unit"].partition(",")[0]
        return cls(
            first["unit"], name,
            [each for each in files["paths"] if each["unit"] == first["unit"]],
            {each["path"]: each for each in files["cases"] if each["workload"] == name},
            first,
            {each["name"]: each for each in files["controls"]},
            [sum(each["seconds"].values()) for each in files["units"]],
        )  # fmt: skip

    def lines(self, unit: Unit) -> Iterator[tuple[str, str]]:
        """(file, line) of another unit."""
        for line in self.paths:
            yield "paths.jsonl", json.dumps(line | {"unit": unit.id})
        for case in unit.cases:
            line = self.cases[str(case.path)] | {"id": case.id, "workload": unit.workload}
            yield "cases.jsonl", json.dumps(line)
        sequences = [each | {"id": each["id"].replace(self.workload, unit.workload)}
                     for each in self.ended["sequences"]]  # fmt: skip
        yield "units.jsonl", json.dumps(self.ended | {"unit": unit.id, "sequences": sequences})


@dataclass
class Simulated(Pools, Pool):
    """Machines of a simulated clock. ``unit_s``: what one takes for a unit; ``start_s``: for a
    process to be there."""

    template: Template
    machines: int
    unit_s: list[float]
    start_s: float
    clock: float = 0.0
    handled_s: list[float] = field(default_factory=list)
    written: dict[str, float] = field(default_factory=dict)

    def seen(self, job: Job) -> Any:
        """As this process is."""
        return Locally().seen(job)

    def tiles(self, job: Job) -> dict[str, object]:
        """As this process has them."""
        return Locally().tiles(job)

    def jobs(self, job: Job, asked: int | None) -> Jobs:
        """One for each machine."""
        return Jobs(self.machines, "simulated")

    def open(self, job: Job, count: Jobs, timeout: float, tell: Tell) -> Pool:
        """The machines."""
        self.gathered, self.tell = Gathered(Evidence(job.folder), versions()), tell
        self.free = [(self.start_s, n) for n in range(self.machines)]
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing runs."""

    def finish(self) -> None:
        """Nothing runs."""

    def run(self, tasks: Iterable[PoolTask[Any]]) -> Iterator[Any]:
        """The ends of all tasks, in the order of the clock; each is heard when the driver can."""
        running: list[tuple[float, int, int, PoolTask[Any]]] = []
        waiting = list(enumerate(tasks))[::-1]

        def begin(at: float, machine: int) -> None:
            if waiting:
                number, task = waiting.pop()
                heapq.heappush(running, (at + self._takes(number, task), number, machine, task))

        for at, machine in self.free:
            begin(max(at, self.clock), machine)
        while running:
            end, number, machine, task = heapq.heappop(running)
            part, answer, cases = self._sent(number, task, machine)
            self.clock = max(self.clock, end)
            began = time.process_time()
            if part is not None:
                begun = Undertaken({number: task_of(number, task.arguments[1])})
                self.gathered.take(begun, part)
            self.tell(f"{len(running)} tasks run")
            yield answer
            self.handled_s.append(time.process_time() - began)
            self.clock += self.handled_s[-1]
            self.written |= dict.fromkeys(cases, self.clock)
            begin(self.clock, machine)

    def _takes(self, number: int, task: PoolTask[Any]) -> float:
        share = RECHECK if task.function is worker.do_recheck else 1.0
        return share * self.unit_s[number % len(self.unit_s)]

    def _sent(
        self, number: int, task: PoolTask[Any], machine: int
    ) -> tuple[SentPart | None, Any, list[str]]:
        about = NodeAbout(f"{machine // 8:056x}", f"host{machine // 8}", "simulated", str(machine))
        what = task.arguments[1]
        if task.function is worker.do_unit:
            assert isinstance(what, Unit)
            lines = tuple(self.template.lines(what))
            return SentPart(about, lines=lines), what.id, [case.id for case in what.cases]
        if task.function is worker.do_control:
            assert isinstance(what, ControlRun)
            line = self.template.controls[what.control] | {"workload": what.workload}
            part = SentPart(about, lines=(("controls.jsonl", json.dumps(line)),))
            return part, {"name": what.control, "relation": what.relation, "unplanted": None}, []
        assert task.function is worker.do_recheck
        rows = {str(path): self.template.ended["rows"][str(path)] for path in task.arguments[2]}
        return None, FreshRows.model_validate({"unit": what.id, "rows": rows}).document(), []


def simulated(file: Path, folder: Path, pools: Simulated) -> dict[str, Any]:
    """Verify on simulated machines."""
    began = time.process_time()
    report = driver.verify(
        load(file), device="cpu", folder=folder, jobs=None, resume=False, command="simulated",
        progress=lambda *_: None, pools=pools,
    )  # fmt: skip
    whole = time.process_time() - began
    handled = sum(pools.handled_s)
    ends = sorted(pools.handled_s)
    return {
        "verdict": report.verdict,
        "cases": sum(len(check.cases) for check in report.checks),
        "machines": pools.machines,
        "wall_s": round(pools.clock + whole - handled, 2),
        "driver_cpu_s": round(whole, 2),
        "driver_plan_and_report_s": round(whole - handled, 2),
        "driver_ms_an_end": {
            "median": round(1e3 * ends[len(ends) // 2], 2), "last": round(1e3 * ends[-1], 2),
        },
        "cases_a_second_of_the_driver": round(len(pools.written) / handled, 1),
        "evidence_bytes": _bytes(folder),
    }  # fmt: skip


def _bytes(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def first_red(written: dict[str, float]) -> dict[str, dict[str, float]]:
    """Seconds to the first of so many red cases, at places that are drawn."""
    generator, times = random.Random(0), list(written.values())
    found = {}
    for red in RED:
        firsts = sorted(min(generator.sample(times, red)) for _ in range(DRAWS))
        median, most = firsts[DRAWS // 2], firsts[DRAWS * 9 // 10]
        found[str(red)] = {"median_s": round(median, 1), "nine_of_ten_s": round(most, 1)}
    return found


def small(folder: Path) -> tuple[Template, dict[str, Any]]:
    """A real run, and the simulation of it."""
    file = contract(folder, SMALL)
    began = time.monotonic()
    real = kvparity.verify(file, run_dir=folder / "real", device="cpu", jobs=SMALL_JOBS)
    took = time.monotonic() - began
    template = Template.of(folder / "real")
    computed = sum(template.seconds) / SMALL_JOBS
    start = _start_s()
    pools = Simulated(template, SMALL_JOBS, template.seconds, start)
    found = simulated(file, folder / "again", pools)
    bytes_real = _bytes(folder / "real")
    return template, {
        "cases": len(real.cases), "jobs": SMALL_JOBS, "real_s": round(took, 2),
        "of_that_paths_s": round(computed, 2), "start_s": round(start, 2),
        "simulated_s": found["wall_s"], "real_over_simulated": round(took / found["wall_s"], 2),
        "real_evidence_bytes": bytes_real, "simulated_evidence_bytes": found["evidence_bytes"],
        "simulated_over_real_bytes": round(found["evidence_bytes"] / bytes_real, 2),
    }  # fmt: skip


def _start_s() -> float:
    """Seconds until a new process of the subject answers."""
    began = time.monotonic()
    with Apart(1, 60.0, lambda words: None, first=worker.start) as pool:
        list(pool.run([PoolTask(math.sqrt, (4.0,))]))
        return time.monotonic() - began


def main() -> None:
    """Measure, simulate, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stdout", action="store_true", help="print the result, write nothing")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template, beside = small(folder)
        document: dict[str, Any] = {"small": beside, "large": []}
        file = contract(folder, LARGE)
        for unit_s in UNIT_S:
            pools = Simulated(template, GPUS, [unit_s], beside["start_s"])
            found = simulated(file, folder / f"large{unit_s:g}", pools)
            found |= {"unit_s": unit_s, "first_red": first_red(pools.written)}
            document["large"].append(found)
            print(json.dumps(found), file=sys.stderr)
        document["environment"] = environment(torch.device("cpu"), None).document()
    text = json.dumps(document, indent=1) + "\n"
    print(text, end="") if args.stdout else OUT.write_text(text)


if __name__ == "__main__":
    main()
