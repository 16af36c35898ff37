"""What a CUDA device has to say: tests, verdicts, orders, audit and times, in one folder.

    ci/gpu                        all steps, in ten minutes at most
    ci/gpu --only tests bench     some of them
    ci/gpu --dry-run              no device: list the steps and compile what they would launch

A step that has its answer in the output folder is not run again (but see --again). Exit codes:
0 fine, 1 a step failed, 2 bad command line or folder, 4 fine so far but not all steps ran, 130
interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from importlib.util import find_spec
from pathlib import Path

from gpu_steps.record import TABLE, Document, GpuError, ResultsFolder, StepOutcome
from gpu_steps.step import environment, run_step, stop_all
from gpu_steps.steps import BESIDE, ROOT, STEPS, Step

SOURCES = ("harness", "kernels", "contracts", "tests/gpu", "ci", "docs/results/device")
ANSWERS = "docs/results/device/*/*"  # what was published of other runs
JOBS = max(1, min(4, len(os.sched_getaffinity(0)) // 4))
MODULES = ("torch", "triton", "numpy", "pytest", "pydantic", "ruamel.yaml", "safetensors", "tqdm")
FACTS = """
import json, platform
import torch
import kvparity
from kvparity.core.environment import versions
here = torch.cuda.is_available()
print(json.dumps({
    "device": torch.cuda.get_device_name() if here else None,
    "capability": ".".join(map(str, torch.cuda.get_device_capability())) if here else None,
    "cuda": torch.version.cuda, "python": platform.python_version(), **versions(),
}))
"""


def facts() -> dict[str, str | None]:
    """Device, versions and a hash of the code: results with other facts do not mix.

    Raises ``GpuError`` if a module is missing that everything here needs.
    """
    if missing := [name for name in MODULES if not _importable(name)]:
        raise GpuError(
            f"{', '.join(missing)} cannot be imported by {sys.executable}; install them, or put "
            "them into a folder (pip install --target) and name it in PYTHONPATH"
        )
    done = subprocess.run(
        [sys.executable, "-c", FACTS],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"gpu: kvparity does not import here:\n{done.stderr.strip()}")
    found: dict[str, str | None] = json.loads(done.stdout.splitlines()[-1])
    return found | {"sources": sources()}


def _importable(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # of a package around it
        return False


def sources() -> str:
    """A hash of everything that decides an answer."""
    digest = hashlib.sha256()
    for name in SOURCES:
        for path in sorted((ROOT / name).rglob("*")):
            if path.match(ANSWERS) or "__pycache__" in path.parts:
                continue
            if path.is_file():
                digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def run_all(
    steps: Sequence[Step],
    record: ResultsFolder,
    minutes: float,
    told: str,
    names: Sequence[str],
    jobs: int = 1,
) -> int:
    """Run what has no answer yet and fits, ``jobs`` at once; every step gets a line.

    A step that has to be alone waits until no other runs, and the others wait for it. Returns the
    exit code.
    """
    end = time.monotonic() + 60 * minutes
    code = record.write(names, BESIDE, told)
    waiting = list(steps)
    running: dict[Future[tuple[StepOutcome, Document | None]], Step] = {}
    with ThreadPoolExecutor(jobs) as pool:
        while waiting or running:
            while waiting and _may_start(waiting[0], list(running.values()), jobs):
                step = waiting.pop(0)
                left = end - time.monotonic()
                if record.finished(step.name):
                    print(f"{step.name}: answered before", file=sys.stderr)
                elif left < step.expect_s:
                    words = f"{max(left, 0):.0f} s left, about {step.expect_s:.0f} needed"
                    record.left_out(step.name, step.asks, words)
                else:
                    limit = min(left, step.timeout_s)
                    running[pool.submit(run_step, step, record.folder, limit)] = step
            try:
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
            except KeyboardInterrupt:
                stop_all()
                raise
            for each in ended:
                del running[each]
                outcome, document = each.result()
                record.keep(outcome, document)
                answer = outcome.verdict or outcome.reason
                print(f"{outcome.step} ... {outcome.state}: {answer}", file=sys.stderr)
            code = record.write(names, BESIDE, told)
    return code


def _may_start(step: Step, running: Sequence[Step], jobs: int) -> bool:
    if step.alone or any(each.alone for each in running):
        return not running
    return len(running) < jobs


def dry_run(steps: Sequence[Step], archs: Sequence[str]) -> int:
    """List the steps, then compile what they would launch."""
    for step in steps:
        print(f"{step.name:<26} {step.asks}\n{'':<26} {shlex.join(step.command)}")
    command = [sys.executable, "-m", "gpu_steps.compile", *archs]
    command += ["--steps", *(step.name for step in steps)]
    return 0 if subprocess.run(command, env=environment(), check=False).returncode == 0 else 1


def options(names: Sequence[str]) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="ci/gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), metavar="DIR")
    parser.add_argument("--only", nargs="+", choices=names, metavar="STEP", help="these steps")
    parser.add_argument("--list", action="store_true", help="list the steps and stop")
    parser.add_argument("--dry-run", action="store_true", help="list and compile, run nothing")
    parser.add_argument(
        "--arch",
        nargs="+",
        default=["sm_90"],
        metavar="ARCH",
        help="for --dry-run: sm_80, sm_90, sm_100 (default: %(default)s)",
    )
    parser.add_argument("--minutes", type=float, default=10, metavar="N", help="time for all steps")
    parser.add_argument(
        "--jobs", type=int, default=JOBS, metavar="N",
        help="steps at once, but for those that are timed (default here: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--again", action="store_true", help="run steps again that have an answer")
    return parser


def main(argv: Sequence[str] | None = None, steps: Sequence[Step] = STEPS) -> int:
    """Run; returns the exit code."""
    names = [step.name for step in steps]
    args = options(names).parse_args(argv)
    chosen = [step for step in steps if not args.only or step.name in args.only]
    if args.list:
        print("\n".join(f"{step.name:<26} {step.asks}" for step in chosen))
        return 0
    if args.dry_run:
        return dry_run(chosen, args.arch)
    try:
        found = facts()
        if found["device"] is None:
            raise GpuError("torch sees no CUDA device here; --dry-run needs none")
        record = ResultsFolder(args.out, found, drop=[s.name for s in chosen] if args.again else ())
    except GpuError as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 2
    told = shlex.join(["ci/gpu", *(sys.argv[1:] if argv is None else argv)])
    try:
        code = run_all(chosen, record, args.minutes, told, names, max(1, args.jobs))
    except KeyboardInterrupt:
        print("gpu: interrupted; answers so far are kept", file=sys.stderr)
        return 130
    print((args.out / TABLE).read_text())
    return code


if __name__ == "__main__":
    sys.exit(main())
