"""Kill verifications at random moments, resume them, and compare them with one left alone.

python ci/kill_runs.py --kills 100              ends with 1 if anything finished was lost
python ci/kill_runs.py --kills 0 --at-once 16   many that begin at once, in one folder

The subject is a tiny pair of plain torch that differs in one path, so that there are cases that
hold, cases that differ with their evidence, and controls. Kills are of four kinds, in turn:
SIGKILL to the command, SIGKILL to a process of the subject, Ctrl-C, SIGTERM. One in four comes at a
moment of the whole run, start and end as well; the others just after some line of evidence was
written. Every kill is followed by ``--resume``, which is killed too, until one comes to its end.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from kill_subject import CONTRACT, PAIR
from pydantic import JsonValue

Left = dict[str, JsonValue | bytes | list[str]]
"""What a run folder holds, by file: a document, bytes, or sorted lines."""

ROOT = Path(__file__).resolve().parent.parent
VERIFY = [sys.executable, "-m", "kvparity", "verify", "contract.yaml", "--device", "cpu"]
DIFFERS, ERROR, INTERRUPTED = 1, 3, 130
KINDS: dict[str, tuple[int, ...]] = {
    "kill the command": (-signal.SIGKILL,),
    "kill a process of the subject": (ERROR,),
    "Ctrl-C": (INTERRUPTED,),
    "SIGTERM": (INTERRUPTED,),
}
"""The exit codes of each; and that of the verdict, which may have been reached before."""
FILES = ("cases.jsonl", "controls.jsonl", "paths.jsonl", "units.jsonl")
TIMES = {"elapsed_s", "seconds"}
"""What a resumed run need not have in common with one that was left alone."""


@dataclass
class Tally:
    """What was done, and what went wrong."""

    kills: Counter[str] = field(default_factory=Counter)
    moments: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    kept: int = 0
    runs: int = 0
    wrong: list[str] = field(default_factory=list)


def begin(folder: Path, *more: str) -> subprocess.Popen[str]:
    """Start one verification in ``folder``; what it says on stderr can be read."""
    paths = [str(ROOT / name) for name in ("harness", "kernels", "contracts")]
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    return subprocess.Popen(
        [*VERIFY, *more],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )


def whole(folder: Path, jobs: int) -> tuple[Left, float]:
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


def left(run: Path) -> Left:
    """All that a run folder holds but times: the report, the lines, the bytes of failures."""
    found: Left = {}
    for file in sorted(each for each in run.rglob("*") if each.is_file()):
        name = str(file.relative_to(run))
        if file.suffix == ".json":
            found[name] = without(TIMES, json.loads(file.read_text()))
        elif file.suffix == ".jsonl":
            lines = [without(TIMES, json.loads(line)) for line in file.read_text().splitlines()]
            found[name] = sorted(json.dumps(line, sort_keys=True) for line in lines)
        else:
            found[name] = file.read_bytes()
    return found


def without(gone: Collection[str], value: JsonValue) -> JsonValue:
    """A value without these keys, at any depth."""
    if isinstance(value, dict):
        return {key: without(gone, each) for key, each in value.items() if key not in gone}
    return [without(gone, each) for each in value] if isinstance(value, list) else value


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
    if kind == "kill a process of the subject" and not own:  # none yet, or none any more
        kind = "kill the command"
    if kind == "kill a process of the subject":
        with suppress(ProcessLookupError):
            os.kill(random.choice(own), signal.SIGKILL)
    elif kind in ("Ctrl-C", "SIGTERM"):
        process.send_signal(signal.SIGINT if kind == "Ctrl-C" else signal.SIGTERM)
    else:
        process.kill()
    _, said = process.communicate(timeout=120)
    tally.kills[kind] += 1
    tally.codes[process.returncode] += 1
    if process.returncode not in (*KINDS[kind], DIFFERS):
        tally.wrong.append(f"{kind}: ended with {process.returncode}: {said.strip()[-300:]!r}")
    for words in ("resource_tracker", "internal error", "Traceback", "Exception ignored"):
        if words in said:
            tally.wrong.append(f"{kind}: said {said.strip()[-300:]!r}")
            break
    until = time.monotonic() + 15
    while (stay := [pid for pid in own if Path(f"/proc/{pid}/cmdline").is_file()
                    and b"kvparity" in Path(f"/proc/{pid}/cmdline").read_bytes()]):  # fmt: skip
        if time.monotonic() > until:
            tally.wrong.append(f"{kind}: {len(stay)} processes stay")
            break
        time.sleep(0.1)


def lines(run: Path, files: Sequence[str] = ("cases.jsonl", "controls.jsonl")) -> list[str]:
    """The finished cases and controls, or what other files hold."""
    found = []
    for name in files:
        if (run / name).is_file():
            text = (run / name).read_text()
            found += text[: text.rfind("\n") + 1].splitlines()
    return found


def wait(process: subprocess.Popen[str], run: Path, took: float, most: int, tally: Tally) -> bool:
    """Let a verification run until a moment that is drawn; whether it still runs then."""
    until = time.monotonic() + random.uniform(0.15, 1.05) * took
    there = len(lines(run, FILES))
    clock = random.random() < 0.25 or there >= most
    count = None if clock else there + 1 + random.randrange(most - there)
    pause = random.uniform(0, 0.05)
    while process.poll() is None:
        now = len(lines(run, FILES))
        if count is None and time.monotonic() > until:
            break
        if count is not None and now >= count:
            time.sleep(pause)
            break
        time.sleep(0.01)
    now = len(lines(run, FILES))
    where = "before the first line" if not now else "between the lines"
    tally.moments["after the last line" if now >= most else where] += process.poll() is None
    return process.poll() is None


def torment(folder: Path, kills: int, jobs: int, tally: Tally) -> None:
    """Kill ``kills`` times; every run that comes to its end is compared with the one left alone."""
    wanted, took = whole(folder, jobs)
    most = sum(len(held) for name in FILES if isinstance(held := wanted.get(name), list))
    wanted.pop("paths.jsonl", None)  # a path that was cut short has a second line
    run, kept = folder / "run", list[str]()
    while sum(tally.kills.values()) < kills or run.exists():
        resume = ["--resume"] if (run / "identity.json").is_file() else []
        process = begin(folder, "--run-dir", "run", "--jobs", str(jobs), *resume)
        said, kind = "", [*KINDS][sum(tally.kills.values()) % len(KINDS)]
        over = len(lines(run, FILES)) >= most and random.random() < 0.8  # most ends are left alone
        left_alone = over or sum(tally.kills.values()) >= kills
        if not left_alone and wait(process, run, took, most, tally):
            kill(process, kind, tally)
        else:
            _, said = process.communicate()
        now = lines(run)
        lost = [line for line in kept if line not in now]
        if lost:
            tally.wrong.append(f"lost {len(lost)} of {len(kept)} finished lines")
        kept = now
        if (run / "bad-end.txt").is_file():  # all had ended: its end is not seen a second time
            tally.moments["as the process ended"] += 1
            kept = []
            shutil.rmtree(run)
            continue
        if not (run / "run.json").is_file():
            if process.returncode not in (-signal.SIGKILL, ERROR, INTERRUPTED):
                tally.wrong.append(f"ended with {process.returncode}: {said.strip()[-300:]!r}")
                shutil.rmtree(run, ignore_errors=True)
                kept = []
            continue
        found = left(run)
        found.pop("paths.jsonl", None)
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
    texts = [(run / "run.json").read_text() for run in runs]
    reports = [without(TIMES, json.loads(text) | {"run_dir": ""}) for text in texts]
    if len(runs) != number or any(report != reports[0] for report in reports):
        tally.wrong.append(f"{number} at once left {len(runs)} folders, or unlike reports")


def record(given: argparse.Namespace, tally: Tally, seconds: float) -> dict[str, object]:
    """What was done and found, as JSON values."""
    command = f"python ci/kill_runs.py --kills {given.kills} --at-once {given.at_once}"
    return {
        "schema_version": 1,
        "command": f"{command} --jobs {given.jobs} --seed {given.seed}",
        "versions": {"python": platform.python_version(), "torch": metadata.version("torch")},
        "platform": platform.platform(),
        "kills": dict(sorted(tally.kills.items())),
        "moments": dict(sorted(tally.moments.items())),
        "exit_codes": {str(code): count for code, count in sorted(tally.codes.items())},
        "runs_resumed_to_their_end": tally.runs,
        "cases_and_controls_in_them": tally.kept,
        "begun_at_once": given.at_once,
        "seconds": round(seconds),
        "wrong": tally.wrong,
    }


def main(arguments: list[str] | None = None) -> int:
    """0 if nothing went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, metavar="FILE", help="keep the answer as JSON, too")
    given = parser.parse_args(arguments)
    random.seed(given.seed)
    # A shell starts what runs in the background with Ctrl-C ignored, and verifications inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tally, began = Tally(), time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "pair.py").write_text(PAIR)
        Path(scratch, "contract.yaml").write_text(CONTRACT)
        if given.kills:
            torment(Path(scratch), given.kills, given.jobs, tally)
        if given.at_once:
            at_once(Path(scratch), given.at_once, tally)
    found = record(given, tally, time.monotonic() - began)
    for name, value in found.items():
        if name not in ("schema_version", "wrong"):
            print(f"{name}: {value}")
    for words in tally.wrong:
        print(f"WRONG: {words}")
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
