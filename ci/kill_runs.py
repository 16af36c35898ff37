"""Kill verifications at random moments, resume them, and hold them against one left alone.

python ci/kill_runs.py --kills 100              ends with 1 if anything finished was lost
python ci/kill_runs.py --kills 0 --at-once 16   many that begin at once, in one folder

The subject is a tiny pair of plain torch that differs in one path, so that there are cases that
hold, cases that differ with their evidence, and controls. Kills are of three kinds, in turn:
SIGKILL to the command, SIGKILL to a process of the subject, Ctrl-C. Every kill is followed by
``--resume``, which is killed too, until one comes to its end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VERIFY = [sys.executable, "-m", "kvparity.cli.main", "verify", "contract.yaml", "--device", "cpu"]
DIFFERS, ERROR, INTERRUPTED = 1, 3, 130
KINDS = ("kill the command", "kill a process of the subject", "Ctrl-C")
TIMES = {"elapsed_s", "seconds"}
"""What a resumed run need not have in common with one that was left alone."""
PAIR = """
import time
from itertools import pairwise
import torch


def row(q, k, v, scale):
    k, v = (x.repeat_interleave(q.shape[0] // k.shape[1], 1) for x in (k, v))
    s = (q[None] * k).sum(-1) * scale
    top = s.max(0).values
    p = torch.exp(s - top)
    return (p[..., None] * v).sum(0) / p.sum(0)[:, None], top + torch.log(p.sum(0))


def prefill(q, k, v, *, cu_seqlens_q, cu_seqlens_k, scale):
    time.sleep(0.004)
    rows = []
    edges = list(zip(cu_seqlens_q.tolist(), cu_seqlens_k.tolist()))
    for (q0, k0), (q1, k1) in pairwise(edges):
        for t in range(q0, q1):
            stop = k1 - (q1 - 1 - t)
            rows.append(row(q[t], k[k0:stop], v[k0:stop], scale))
    return torch.stack([r[0] for r in rows]), torch.stack([r[1] for r in rows])


def decode(q, k, v, *, kv_lens, scale):
    time.sleep(0.004)
    found = []
    for i, n in enumerate(kv_lens.tolist()):
        keys, values = k[i, :n], v[i, :n]
        if len(q) > 1:  # another order for a batch: this path differs
            keys, values = keys.flip(0), values.flip(0)
        found.append(row(q[i], keys, values, scale))
    return torch.stack([r[0] for r in found]), torch.stack([r[1] for r in found])
"""
CONTRACT = """\
version: 1
name: killed
subject: {kind: attention, prefill: 'pair.py:prefill', decode: 'pair.py:decode',
          heads: {query: 6, kv: 2, dim: 8}, empty: never, inputs: contiguous}
numerics: {execution: float32}
workloads:
  - {name: short, prompt_tokens: [3, 17], generate: 8}
  - {name: long, prompt_tokens: [40], generate: 16}
checks:
  - {name: bits, relation: invariance, paths: [decode, 'chunked(4)', batched, mixed]}
  - {name: right, relation: accuracy, limits: {max_abs: 1.0e-5}}
controls: [stale-slot, wrong-input, narrow-cache]
"""


@dataclass
class Tally:
    """What was done, and what went wrong."""

    kills: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    kept: int = 0
    runs: int = 0
    wrong: list[str] = field(default_factory=list)


def begin(folder: Path, *more: str) -> subprocess.Popen[str]:
    """Start one verification in ``folder``; what it says on stderr can be read."""
    paths = [str(ROOT / name) for name in ("harness", "kernels", "contracts")]
    return subprocess.Popen(
        [*VERIFY, *more],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )


def prepare(folder: Path) -> None:
    """Write the pair and its contract."""
    (folder / "pair.py").write_text(PAIR)
    (folder / "contract.yaml").write_text(CONTRACT)


def whole(folder: Path, jobs: int) -> tuple[dict[str, Any], float]:
    """What a run that is left alone leaves behind, and how long it took."""
    began = time.monotonic()
    process = begin(folder, "--run-dir", "run", "--jobs", str(jobs))
    _, said = process.communicate()
    if process.returncode != DIFFERS:
        raise RuntimeError(f"the run that is left alone ended with {process.returncode}: {said}")
    took = time.monotonic() - began
    found = left(folder / "run")
    shutil.rmtree(folder / "run")
    return found, took


def left(run: Path) -> dict[str, Any]:
    """All that a run folder holds but times: the report, the lines, the bytes of failures."""
    found: dict[str, Any] = {}
    for file in sorted(each for each in run.rglob("*") if each.is_file()):
        name = str(file.relative_to(run))
        if file.suffix == ".json":
            found[name] = timeless(json.loads(file.read_text()))
        elif file.suffix == ".jsonl":
            lines = [timeless(json.loads(line)) for line in file.read_text().splitlines()]
            found[name] = sorted(json.dumps(line, sort_keys=True) for line in lines)
        else:
            found[name] = file.read_bytes()
    found.pop("paths.jsonl", None)  # a path that was cut short is told of again
    return found


def timeless(value: Any) -> Any:
    """A value without times."""
    if isinstance(value, dict):
        return {key: timeless(each) for key, each in value.items() if key not in TIMES}
    return [timeless(each) for each in value] if isinstance(value, list) else value


def descendants(pid: int) -> list[int]:
    """The processes that ``pid`` started, and theirs."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended
        if fields[0] != "Z":
            parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, new = [], [pid]
    while new:
        new = [child for each in new for child in parents.get(each, [])]
        found += new
    return found


def kill(process: subprocess.Popen[str], kind: str, tally: Tally) -> None:
    """End a verification, or a process of it, and see that nothing of it stays."""
    own = descendants(process.pid)
    if kind == "kill a process of the subject" and own:
        with suppress(ProcessLookupError):
            os.kill(random.choice(own), signal.SIGKILL)
    elif kind == "Ctrl-C":
        process.send_signal(signal.SIGINT)
    else:
        process.kill()
    _, said = process.communicate(timeout=120)
    tally.kills[kind] += 1
    tally.codes[process.returncode] += 1
    for words in ("resource_tracker", "internal error", "Traceback"):
        if words in said and "kvparity" in said:
            tally.wrong.append(f"{kind}: said {said.strip()[-300:]!r}")
            break
    until = time.monotonic() + 15
    while (stay := [pid for pid in own if Path(f"/proc/{pid}/cmdline").is_file()
                    and b"kvparity" in Path(f"/proc/{pid}/cmdline").read_bytes()]):  # fmt: skip
        if time.monotonic() > until:
            tally.wrong.append(f"{kind}: {len(stay)} processes stay")
            break
        time.sleep(0.1)


def lines(run: Path) -> list[str]:
    """The finished cases and controls."""
    found = []
    for name in ("cases.jsonl", "controls.jsonl"):
        if (run / name).is_file():
            text = (run / name).read_text()
            found += text[: text.rfind("\n") + 1].splitlines()
    return found


def torment(folder: Path, kills: int, jobs: int, tally: Tally) -> None:
    """Kill ``kills`` times; every run that comes to its end is held against the one left alone."""
    wanted, took = whole(folder, jobs)
    run, kept = folder / "run", []
    while sum(tally.kills.values()) < kills or run.exists():
        resume = ["--resume"] if (run / "identity.json").is_file() else []
        process = begin(folder, "--run-dir", "run", "--jobs", str(jobs), *resume)
        said = ""
        try:
            wait = random.uniform(0.2, 1.05) * took if sum(tally.kills.values()) < kills else None
            _, said = process.communicate(timeout=wait)
        except subprocess.TimeoutExpired:
            kill(process, KINDS[sum(tally.kills.values()) % len(KINDS)], tally)
        now = lines(run)
        lost = [line for line in kept if line not in now]
        if lost:
            tally.wrong.append(f"lost {len(lost)} of {len(kept)} finished lines")
        kept = now
        if not (run / "run.json").is_file():
            if process.returncode not in (-signal.SIGKILL, ERROR, INTERRUPTED):
                tally.wrong.append(f"ended with {process.returncode}: {said.strip()[-300:]!r}")
                shutil.rmtree(run, ignore_errors=True)
            continue
        found = left(run)
        for name in sorted(wanted.keys() | found.keys()):
            if wanted.get(name) != found.get(name):
                tally.wrong.append(f"{name} is not that of the run left alone")
        tally.runs, tally.kept, kept = tally.runs + 1, tally.kept + len(kept), []
        shutil.rmtree(run)


def at_once(folder: Path, number: int, tally: Tally) -> None:
    """Begin ``number`` verifications in one moment, each in its default folder."""
    started = [begin(folder, "--jobs", "1") for _ in range(number)]
    for process in started:
        _, said = process.communicate()
        tally.codes[process.returncode] += 1
        if process.returncode != DIFFERS:
            tally.wrong.append(f"one of {number} ended with {process.returncode}: {said[-300:]!r}")
    runs = list((folder / ".kvparity" / "runs").iterdir())
    reports = [timeless(json.loads((run / "run.json").read_text())) for run in runs]
    for report in reports:
        report.pop("run_dir")
    if len(runs) != number or any(report != reports[0] for report in reports):
        tally.wrong.append(f"{number} at once left {len(runs)} folders, or unlike reports")


def main(arguments: list[str] | None = None) -> int:
    """0 if nothing went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    random.seed(given.seed)
    tally, began = Tally(), time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        prepare(Path(scratch))
        if given.kills:
            torment(Path(scratch), given.kills, given.jobs, tally)
        if given.at_once:
            at_once(Path(scratch), given.at_once, tally)
    for kind, count in sorted(tally.kills.items()):
        print(f"{kind}: {count}")
    codes = ", ".join(f"{code}: {count}" for code, count in sorted(tally.codes.items()))
    print(f"exit codes: {codes}")
    print(f"runs resumed to their end: {tally.runs}, with {tally.kept} cases and controls in all")
    print(f"{time.monotonic() - began:.0f} s")
    for words in tally.wrong:
        print(f"WRONG: {words}")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
