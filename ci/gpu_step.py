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
from typing import Any

from gpu_record import LOG
from gpu_steps import ROOT, RUN, Step

SAID = 256 << 10  # bytes of the log for one step
_log = Lock()  # steps that run at once write one log
_running: set[subprocess.Popen[bytes]] = set()


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


def run_step(step: Step, folder: Path, limit_s: float) -> tuple[dict[str, Any], Any]:
    """Run one step: (outcome, document). What it said on stderr goes to the log when it ends."""
    outcome: dict[str, Any] = {"step": step.name, "asks": step.asks}
    if step.needs and find_spec(step.needs) is None:
        return outcome | {"state": "absent", "reason": f"{step.needs} is not importable here"}, None
    with tempfile.TemporaryDirectory(prefix="kvparity-gpu-") as scratch:
        command = [part.replace(RUN, scratch) for part in step.command]
        outcome["command"] = shlex.join(step.command)
        began = time.monotonic()
        output, errors = Path(scratch, "stdout"), Path(scratch, "stderr")
        with output.open("wb") as out, errors.open("wb") as err:
            code = _wait(command, out, err, limit_s)
        outcome |= {"rc": code, "seconds": round(time.monotonic() - began, 1)}
        text, said = output.read_text(errors="replace"), _end(errors)
        # A document is in the evidence, text is in the log.
        shown = "" if text.rstrip().endswith("}") else text[-8000:]
        with _log, (folder / LOG).open("a", encoding="utf-8") as log:
            print(f"\n== {step.name}: {outcome['command']}\n{said}{shown}", file=log)
        if code is None:
            reason = f"stopped after {limit_s:.0f} s{_ended(Path(scratch))}"
            return outcome | {"state": "timeout", "reason": reason}, None
        return _judge(step, outcome, text, said, Path(scratch))


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


def _ended(scratch: Path) -> str:
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


def _wait(command: Sequence[str], output: Any, errors: Any, limit_s: float) -> int | None:
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
