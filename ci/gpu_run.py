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
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpu_record import LOG, TABLE, GpuError, Record
from gpu_steps import BESIDE, ROOT, RUN, STEPS, Step

SOURCES = ("harness", "kernels", "contracts", "tests/gpu", "ci", "docs/results/device")
ANSWERS = "docs/results/device/*/*"  # what was published of other runs
SAID = 256 << 10  # bytes of the log for one step
FACTS = """
import json, platform
import torch
import kvparity
from kvparity.environment import versions
here = torch.cuda.is_available()
print(json.dumps({
    "device": torch.cuda.get_device_name() if here else None,
    "capability": ".".join(map(str, torch.cuda.get_device_capability())) if here else None,
    "cuda": torch.version.cuda, "python": platform.python_version(), **versions(),
}))
"""


def environment() -> dict[str, str]:
    """Of every step: the checkout on the path, kernels compiled, the device tests switched on."""
    paths = [str(ROOT / name) for name in ("harness", "kernels", "contracts")]
    known = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys([*paths, *known])),
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
        "TRITON_INTERPRET": "0",
        "KVPARITY_GPU_TESTS": "1",
    }


def facts() -> dict[str, Any]:
    """Device, versions and a hash of the code: results with other facts do not mix."""
    done = subprocess.run(
        [sys.executable, "-c", FACTS],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"gpu: kvparity does not import here:\n{done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"sources": sources()}


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


def run_step(step: Step, folder: Path, limit_s: float) -> tuple[dict[str, Any], Any]:
    """Run one step: (outcome, document). What it says on stderr goes to the log as it comes."""
    outcome: dict[str, Any] = {"step": step.name, "asks": step.asks}
    if step.needs and find_spec(step.needs) is None:
        return outcome | {"state": "absent", "reason": f"{step.needs} is not importable here"}, None
    with tempfile.TemporaryDirectory(prefix="kvparity-gpu-") as scratch:
        command = [part.replace(RUN, scratch) for part in step.command]
        outcome["command"] = shlex.join(step.command)
        began = time.monotonic()
        with (
            (folder / LOG).open("a", encoding="utf-8") as log,
            Path(scratch, "stdout").open("w+", encoding="utf-8", errors="replace") as output,
        ):
            print(f"\n== {step.name}: {outcome['command']}", file=log, flush=True)
            at = (folder / LOG).stat().st_size
            code = _wait(command, output, log, limit_s)
            output.seek(0)
            text = output.read()
            if not text.rstrip().endswith("}"):  # a document is in the evidence, text is here
                print(text[-8000:], file=log)
        outcome |= {"rc": code, "seconds": round(time.monotonic() - began, 1)}
        said = _section(folder / LOG, at)
        if code is None:
            return outcome | {"state": "timeout", "reason": f"stopped after {limit_s:.0f} s"}, None
        return _judge(step, outcome, text, said, Path(scratch))


def _section(path: Path, at: int) -> str:
    """What the log says from ``at`` on, of which only the end is kept if it is long."""
    data = path.read_bytes()
    if len(data) - at > SAID:
        data = data[:at] + b"[...]\n" + data[-SAID:]
        path.write_bytes(data)
    return data[at:].decode(errors="replace")


def _wait(command: Sequence[str], output: Any, log: Any, limit_s: float) -> int | None:
    """The exit code; None if it took too long. Nothing that it started outlives it."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=output, stderr=log, start_new_session=True
    )
    try:
        return process.wait(timeout=limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _judge(
    step: Step, outcome: dict[str, Any], text: str, said: str, scratch: Path
) -> tuple[dict[str, Any], Any]:
    try:
        verdict, document = step.read(text, scratch)
    except ValueError as error:
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        if any(words in said for words in step.may_lack):
            return outcome | {"state": "unavailable", "reason": last}, None
        return outcome | {"state": "error", "reason": f"{error} (rc {outcome['rc']}): {last}"}, None
    outcome["verdict"] = verdict
    # A question may be answered by another exit code than 0; a claim that holds has none.
    if verdict in step.good and (outcome["rc"] == 0 or len(step.good) > 1):
        return outcome | {"state": "ok"}, document
    reason = f"expected {' or '.join(sorted(step.good))} (rc {outcome['rc']})"
    if "error" in document:
        reason = f"{document['error']}; {reason}"
    return outcome | {"state": "failed", "reason": reason}, document


def run_all(
    steps: Sequence[Step], record: Record, minutes: float, told: str, names: Sequence[str]
) -> int:
    """Run what has no answer yet and fits; every step gets a line. Returns the exit code."""
    end = time.monotonic() + 60 * minutes
    code = record.write(names, BESIDE, told)
    for step in steps:
        left = end - time.monotonic()
        if record.finished(step.name):
            print(f"{step.name}: answered before", file=sys.stderr)
            continue
        if left < step.expect_s:
            words = f"{max(left, 0):.0f} s left, about {step.expect_s:.0f} needed"
            record.left_out(step.name, step.asks, words)
        else:
            print(f"{step.name} ...", end=" ", file=sys.stderr, flush=True)
            outcome, document = run_step(step, record.folder, min(left, step.timeout_s))
            record.keep(outcome, document)
            words = outcome.get("verdict") or outcome["reason"]
            print(f"{outcome['state']}: {words}", file=sys.stderr)
        code = record.write(names, BESIDE, told)
    return code


def dry_run(steps: Sequence[Step], archs: Sequence[str]) -> int:
    """List the steps, then compile what they would launch."""
    for step in steps:
        print(f"{step.name:<26} {step.asks}\n{'':<26} {shlex.join(step.command)}")
    command = [sys.executable, str(ROOT / "ci" / "gpu_compile.py"), *archs]
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
        "--arch", nargs="+", default=["sm_80", "sm_90", "sm_100"], help="for --dry-run"
    )
    parser.add_argument("--minutes", type=float, default=10, metavar="N", help="time for all steps")
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
        record = Record(args.out, found, drop=[s.name for s in chosen] if args.again else ())
    except GpuError as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 2
    told = shlex.join(["ci/gpu", *(sys.argv[1:] if argv is None else argv)])
    try:
        code = run_all(chosen, record, args.minutes, told, names)
    except KeyboardInterrupt:
        print("gpu: interrupted; answers so far are kept", file=sys.stderr)
        return 130
    print((args.out / TABLE).read_text())
    return code


if __name__ == "__main__":
    sys.exit(main())
