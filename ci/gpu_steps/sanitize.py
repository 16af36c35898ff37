"""Run the attention kernels and every other operation under compute-sanitizer.

    python -m gpu_steps.sanitize                 memcheck, racecheck, synccheck
    python -m gpu_steps.sanitize memcheck        one tool
    python -m gpu_steps.sanitize --launch        what they watch, alone

One JSON document is printed last: verdict ``clean`` or ``errors``, and what each tool counted.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from typing_extensions import NotRequired, TypedDict

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("memcheck", "racecheck", "synccheck")
LENGTHS = (1, 65, 257)
SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)")


class SanitizedRun(TypedDict):
    """What one tool counted. ``errors``: None if it counted nothing; ``said``: unless it is clean.

    The words are those of the document.
    """

    clean: bool
    errors: int | None
    rc: int
    said: NotRequired[str]


def launch(device: str = "cuda") -> None:
    """Launch every kernel a few times."""
    sys.path[:0] = [str(ROOT / name) for name in ("harness", "kernels", "contracts", "tests/gpu")]
    import device_cases as cases  # type: ignore[import-not-found] # a plain module there
    import torch

    cases.fingerprints(device, LENGTHS)
    shape = cases.Shape()
    data = [cases.sequence(n, shape, torch.bfloat16, n, device) for n in LENGTHS]
    cases.last_rows(data, shape, page=16)
    rows = torch.arange(5, device=device)
    for op in cases.operations(torch.bfloat16, device, rows=5).values():
        op(rows)
    if device == "cuda":
        torch.cuda.synchronize()


def watched(tool: str) -> SanitizedRun:
    """One tool over one process: what it counted, or why it counted nothing."""
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9"]
    command += [sys.executable, str(Path(__file__).resolve()), "--launch"]
    # Without torch's own pool each tensor is an allocation, and reading past it shows.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return judged(done.stdout + done.stderr, done.returncode)


def judged(text: str, code: int) -> SanitizedRun:
    """What a tool's output says. No summary, or another exit code than its own, is an error."""
    counted = SUMMARY.findall(text)
    errors = sum(int(n) for n in counted)
    clean = bool(counted) and errors == 0 and code == 0
    found: SanitizedRun = {"clean": clean, "errors": errors if counted else None, "rc": code}
    if not clean:
        found["said"] = text[-4000:]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run; 0 clean, 1 errors, 3 no compute-sanitizer."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given == ["--launch"]:
        launch()
        return 0
    if shutil.which("compute-sanitizer") is None:
        print("compute-sanitizer is not on the PATH", file=sys.stderr)
        return 3
    tools = given or list(TOOLS)
    with ThreadPoolExecutor(len(tools)) as pool:  # each is slow, and most of that is one core's
        found = dict(zip(tools, pool.map(watched, tools), strict=True))
    clean = all(each["clean"] for each in found.values())
    print(json.dumps({"verdict": "clean" if clean else "errors", "tools": found}))
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
