"""Kill nodes and drivers of runs on Ray at random moments, and compare with a run left alone.

python ci/kill_ray.py --kills 10 --out FILE     ends with 1 if anything was lost

A cluster of three local nodes (ray.cluster_utils) of one CPU each. The subject is that of
ci/kill_runs.py, over more workloads. Each node kill is SIGKILL to a node that is not the head and
is at work: at a random moment, and then once it has sent some cases of a unit and not all. A new
node comes in its place; the run goes on. Each driver kill is SIGKILL to the command, at a random
moment after the first line of evidence, followed by --resume: in turn on the cluster and on this
machine alone. What a run leaves must be what a run without Ray left that was left alone, in every
bit but times and places.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import kill_runs
import ray
from kill_subject import CONTRACT, PAIR
from pydantic import JsonValue
from ray.cluster_utils import Cluster

from kvparity_contracts.library import find

HEAD, TAIL = CONTRACT.partition("workloads:\n")[0], CONTRACT[CONTRACT.index("checks:") :]
WORKLOADS = 6
SMALL = (
    HEAD
    + "workloads:\n"
    + "".join(
        f"  - {{name: w{n}, prompt_tokens: [3, {12 + n}], generate: 6}}\n" for n in range(WORKLOADS)
    )
    + TAIL.replace("[stale-slot, wrong-input, narrow-cache]", "[stale-slot]")
)
SLOWER = PAIR.replace("time.sleep(0.004)", "time.sleep(0.03)")  # so that kills meet it at work
PLACES = {"place", "jobs", "command"}
"""What a run on other machines need not have in common with one that was left alone."""
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}


def main(argv: Sequence[str] | None = None) -> int:
    """Kill, compare, and write what was found."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--kills", type=int, default=10)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--contract", help="of the library, in place of the tiny pair")
    asked.add_argument("--out", type=Path)
    args = asked.parse_args(argv)
    random.seed(args.seed)
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    nodes = [cluster.add_node(**NODE) for _ in range(2)]
    found: dict[str, JsonValue] = {}
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            (folder / "pair.py").write_text(SLOWER)
            own = SMALL if args.contract is None else find(args.contract).read_text()
            (folder / "contract.yaml").write_text(own)
            wanted = whole(folder)
            began = time.monotonic()
            on_ray = left(folder, *run(folder, cluster))
            took = time.monotonic() - began
            found["equal to the run without Ray"] = on_ray == wanted
            found["a GPU that no node has"] = refused(folder, cluster)
            drivers = [kill_driver(folder, cluster, wanted, took, n) for n in range(args.kills)]
            killed = [kill_node(folder, cluster, nodes, wanted, took) for _ in range(args.kills)]
            found |= {"node kills": [*killed], "driver kills": [*drivers]}
    finally:
        ray.shutdown()
        cluster.shutdown()
    wrong = [name for name, each in found.items() if not each and "kills" not in name]
    right = not wrong and all(each["equal"] for each in (*killed, *drivers))
    document: dict[str, JsonValue] = {
        "command": f"python ci/kill_ray.py --kills {args.kills} --seed {args.seed}"
        + (f" --contract {args.contract}" if args.contract else ""),
        "machine": {"cpu_count": os.cpu_count(), "platform": platform.platform()},
        "versions": {name: metadata.version(name) for name in ("ray", "torch")}
        | {"python": platform.python_version()},
        "seconds of a run on Ray": round(took, 1),
        "cases": len(lines) if isinstance(lines := wanted["cases.jsonl"], list) else 0,
        **found,
        "node kills that took work with them": sum(bool(each["attempts lost"]) for each in killed),
        "nothing lost, nothing twice, reports equal": right,
    }
    text = json.dumps(document, indent=1) + "\n"
    print(text, end="")
    if args.out is not None:
        args.out.write_text(text)
    return 0 if right else 1


def whole(folder: Path) -> dict[str, JsonValue]:
    """What a run without Ray leaves."""
    process = kill_runs.begin(folder, "--run-dir", "run", "--jobs", "2", "--no-locate")
    return left(folder, *ended(process))


def run(folder: Path, cluster: Cluster, *more: str) -> tuple[int, str]:
    """A run on the cluster, to its end."""
    return ended(begin(folder, cluster, *more))


def begin(folder: Path, cluster: Cluster, *more: str) -> subprocess.Popen[str]:
    """A run on the cluster."""
    return kill_runs.begin(
        folder, "--run-dir", "run", "--ray", cluster.address, "--no-locate", *more
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code, and what was said."""
    _, said = process.communicate()
    return process.returncode, said


def left(folder: Path, code: int, said: str) -> dict[str, JsonValue]:
    """What a run left but times and places; the folder is taken away."""
    if code not in (0, kill_runs.DIFFERS):
        sys.exit(f"a run ended with {code}: {said}")
    held = kill_runs.left(folder / "run")
    shutil.rmtree(folder / "run")
    found: dict[str, JsonValue] = {}
    for name, each in held.items():
        if name in ("identity.json", "retries.jsonl"):
            continue
        if isinstance(each, bytes):
            found[name] = each.hex()
        elif isinstance(each, list):  # of lines; documents are objects
            found[name] = [kill_runs.without(PLACES, json.loads(str(line))) for line in each]
        else:
            found[name] = kill_runs.without(PLACES, each)
    return found


def refused(folder: Path, cluster: Cluster) -> str:
    """What is said where every task takes a GPU, and no node has one; empty if that is wrong."""
    code, said = run(folder, cluster, "--device", "cuda", "--ray-wait", "1")
    right = code == 2 and "no node of the Ray cluster has 1 CPU and 1 GPU" in said
    return said.strip() if right and not (folder / "run").exists() else ""


def kept(folder: Path) -> list[str]:
    """The whole lines of finished cases and controls."""
    return kill_runs.lines(folder / "run")


def kill_node(
    folder: Path, cluster: Cluster, nodes: list[Any], wanted: object, took: float
) -> dict[str, JsonValue]:
    """Let a run lose a node that is at work."""
    moment = random.uniform(0.2, 0.7) * took
    process = begin(folder, cluster)
    time.sleep(moment)
    while (found := at_work(folder, nodes, wanted)) is None and process.poll() is None:
        time.sleep(0.05)
    lost, work = found or (random.choice(nodes), None)
    before, over = kept(folder), process.poll() is not None
    nodes.remove(lost)
    cluster.remove_node(lost, allow_graceful=False)
    nodes.append(cluster.add_node(**NODE))
    code, said = ended(process)
    after = kept(folder)
    retries = [json.loads(each) for each in kill_runs.lines(folder / "run", ["retries.jsonl"])]
    return {
        "not before": round(moment, 1), "at work on": work, "over": over,
        "lines then": len(before),
        "attempts lost": len(retries), "changed": sum(bool(each["changed"]) for each in retries),
        "kept": before == after[: len(before)],
        "equal": left(folder, code, said) == wanted and before == after[: len(before)],
    }  # fmt: skip


def at_work(folder: Path, nodes: list[Any], wanted: object) -> tuple[Any, str] | None:
    """One of the nodes that has sent some cases of a workload and not all, and which that is."""
    assert isinstance(wanted, dict)
    planned = Counter(each["workload"] for each in wanted["cases.jsonl"])
    there = [json.loads(line) for line in kill_runs.lines(folder / "run", ["cases.jsonl"])]
    sent = Counter((each["place"]["node"], each["workload"]) for each in there)
    by_id = {node.node_id: node for node in nodes}
    busy = [
        (by_id[node], f"{count} of {planned[workload]} cases of {workload}")
        for (node, workload), count in sent.items()
        if node in by_id and count < planned[workload]
    ]
    return random.choice(busy) if busy else None


def kill_driver(
    folder: Path, cluster: Cluster, wanted: object, took: float, number: int
) -> dict[str, JsonValue]:
    """Kill a driver, and resume: in turn on the cluster and without it."""
    moment = random.uniform(0.0, 0.5) * took
    process = begin(folder, cluster)
    while not kept(folder) and process.poll() is None:
        time.sleep(0.05)
    time.sleep(moment)
    over = process.poll() is not None
    process.kill()
    process.communicate()
    before, there = kept(folder), (folder / "run" / "identity.json").is_file()
    resume = ["--resume"] if there else []
    if number % 2:
        code, said = run(folder, cluster, *resume)
    else:
        more = ["--run-dir", "run", "--jobs", "2", "--no-locate", *resume]
        code, said = ended(kill_runs.begin(folder, *more))
    after = kept(folder)
    return {
        "after the first line": round(moment, 1), "over": over, "lines then": len(before),
        "resumed": "on Ray" if number % 2 else "here",
        "kept": before == after[: len(before)],
        "equal": left(folder, code, said) == wanted and before == after[: len(before)],
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
