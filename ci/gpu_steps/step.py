"""Run one step of ci/gpu in a process of its own and judge what it said."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import IO

from gpu_steps.record import LOG, Document, State, StepOutcome
from gpu_steps.steps import ROOT, RUN, Step

SAID = 256 << 10  # bytes of the log for one step
_log = Lock()  # steps that run at once write one log
_running: set[subprocess.Popen[bytes]] = set()


def environment() -> dict[str, str]:
    """Of every step: the checkout on the path, kernels compiled, the device tests switched on."""
    paths = [str(ROOT / name) for name in ("harness", "kernels", "contracts", "ci")]
    known = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys([*paths, *known])),
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
        "TRITON_INTERPRET": "0",
        "KVPARITY_GPU_TESTS": "1",
    }


def run_step(step: Step, folder: Path, limit_s: float) -> tuple[StepOutcome, Document | None]:
    """Run one step: (outcome, document). What it said on stderr goes to the log when it ends."""
    begun = StepOutcome(step=step.name, asks=step.asks, state="error")
    if step.needs and find_spec(step.needs) is None:
        return _ended_as(begun, "absent", f"{step.needs} is not importable here"), None
    with tempfile.TemporaryDirectory(prefix="kvparity-gpu-") as scratch:
        command = [part.replace(RUN, scratch) for part in step.command]
        began = time.monotonic()
        output, errors = Path(scratch, "stdout"), Path(scratch, "stderr")
        with output.open("wb") as out, errors.open("wb") as err:
            code = _wait(command, out, err, limit_s)
        seconds = round(time.monotonic() - began, 1)
        ran = {"command": shlex.join(step.command), "rc": code, "seconds": seconds}
        begun = begun.model_copy(update=ran)
        text, said = output.read_text(errors="replace"), _end(errors)
        # A document is in the evidence, text is in the log.
        shown = "" if text.rstrip().endswith("}") else text[-8000:]
        with _log, (folder / LOG).open("a", encoding="utf-8") as log:
            print(f"\n== {step.name}: {begun.command}\n{said}{shown}", file=log)
        if code is None:
            reason = f"stopped after {limit_s:.0f} s{_cases_ended(Path(scratch))}"
            return _ended_as(begun, "timeout", reason), None
        return judge(step, begun, text, said, Path(scratch))


def _ended_as(begun: StepOutcome, state: State, reason: str) -> StepOutcome:
    return begun.model_copy(update={"state": state, "reason": reason})


def stop_all() -> None:
    """Stop the steps that run, with all they started."""
    for process in list(_running):
        _kill(process)


def _end(path: Path) -> str:
    """What is in a file, of which only the end is kept if it is long."""
    data = path.read_bytes()
    if len(data) > SAID:
        data = b"[...]\n" + data[-SAID:]
    return data.decode(errors="replace")


def _cases_ended(scratch: Path) -> str:
    """Of a verification that was stopped: the cases that had ended, in words."""
    cases = scratch / "run" / "cases.jsonl"
    if not cases.is_file():
        return ""
    verdicts: Counter[str] = Counter()
    for line in cases.read_text(errors="replace").splitlines():
        try:
            verdicts[str(json.loads(line)["verdict"])] += 1
        except (ValueError, KeyError, TypeError):
            continue  # cut off while it was written
    told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    return f"; cases that had ended: {told or 'none'}"


def _wait(
    command: Sequence[str], output: IO[bytes], errors: IO[bytes], limit_s: float
) -> int | None:
    """The exit code; None if it took too long. Nothing that it started outlives it."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=output, stderr=errors, start_new_session=True
    )
    _running.add(process)
    try:
        return process.wait(timeout=limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _kill(process)
        _running.discard(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def judge(
    step: Step, begun: StepOutcome, text: str, said: str, scratch: Path
) -> tuple[StepOutcome, Document | None]:
    """What a step's output says: ``text`` is its stdout, ``said`` the end of its stderr."""
    lacks = any(words in said for words in step.may_lack)
    last = (said.strip().splitlines() or ["it said nothing"])[-1]
    try:
        verdict, document = step.read(text, scratch)
    except ValueError as error:
        if lacks:
            return _ended_as(begun, "unavailable", last), None
        return _ended_as(begun, "error", f"{error} (rc {begun.rc}): {last}"), None
    if verdict == "error" and lacks:
        return _ended_as(begun, "unavailable", last), None
    begun = begun.model_copy(update={"verdict": verdict})
    # A question may be answered by another exit code than 0; a claim that holds has none.
    if verdict in step.good and (begun.rc == 0 or len(step.good) > 1):
        return begun.model_copy(update={"state": "ok"}), document
    reason = f"expected {' or '.join(sorted(step.good))} (rc {begun.rc})"
    if "error" in document:
        reason = f"{document['error']}; {reason}"
    return _ended_as(begun, "failed", reason), document
