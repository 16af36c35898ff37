"""Run the commands of the steps in this process, on a pretended device, and note their launches.

python ci/gpu_rehearse.py                  all steps: how many forms of kernels each launches
python ci/gpu_rehearse.py tests bench -v   some, with every form
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / name) for name in ("harness", "kernels", "contracts", "ci")]
os.environ["TRITON_INTERPRET"] = "0"
os.environ["KVPARITY_GPU_TESTS"] = "1"

import torch  # noqa: E402 - the path and the mode come first
from gpu_recording import Form, forget, launches_recorded, less_work  # noqa: E402
from gpu_shorten import SHORTEN, eager, on_the_cpu, traced, without_asserts  # noqa: E402
from gpu_stand_ins import flashinfer  # noqa: E402
from gpu_steps import RUN, STEPS, Step  # noqa: E402
from pretend_cuda import pretended  # noqa: E402

ENDED = (0, 1, 5)  # exit codes of a command that came to its end, whatever it found


@dataclass
class Found:
    """What a step launched. ``problem``: why that may not be all; ``said``: its last words."""

    forms: set[Form] = field(default_factory=set)
    problem: str | None = None
    absent: str | None = None
    said: str = ""
    seconds: float = 0.0


def rehearse(step: Step, capability: tuple[int, int] = (9, 0)) -> Found:
    """Run one step in this process. Nothing is left as it was: use a process for each."""
    if step.needs not in (None, "flashinfer") and find_spec(step.needs) is None:
        return Found(absent=f"{step.needs} is not importable here")
    began = time.process_time()
    found = Found()
    torch.set_num_threads(1)
    os.environ["KVPARITY_TRACEBACK"] = "1"
    with TemporaryDirectory() as scratch, ExitStack() as stack:
        said = stack.enter_context(Path(scratch, "said").open("w+"))
        stack.enter_context(contextlib.redirect_stdout(said))
        stack.enter_context(contextlib.redirect_stderr(said))
        found.forms = stack.enter_context(launches_recorded())
        stack.enter_context(less_work())
        stack.enter_context(flashinfer())
        try:
            words = [part.replace(RUN, scratch) for part in step.command[1:]]
            found.problem = run(words, capability)
        except BaseException as error:  # whatever ends a step early is its problem
            traceback.print_exc(file=said)
            found.problem = f"{type(error).__name__}: {error}"
        said.seek(0)
        found.said = said.read()[-4000:]
    found.seconds = time.process_time() - began
    return found


def run(words: list[str], capability: tuple[int, int]) -> str | None:
    """Run a step's command here; why it did not come to its end, or None."""
    if words[:2] == ["-m", "kvparity"]:
        return _verb(words[2:], capability)
    with pretended(capability):
        if words[:2] == ["-m", "pytest"]:
            import pytest

            with without_asserts():
                code = int(pytest.main([*words[2:], "--assert=plain"]))
            return f"pytest ended with {code}" if code else None
        return _script(Path(words[0]).name)


def _verb(arguments: list[str], capability: tuple[int, int]) -> str | None:
    verb = arguments[0]
    if verb == "tiles":
        arguments = [*arguments, "--jobs", "1"]
    if verb == "verify" and traced(arguments[1]):
        if problem := _traced(arguments):
            return problem
        with pretended(capability), eager():
            return _main(arguments)
    with pretended(capability):
        return _main(arguments)


def _main(arguments: list[str]) -> str | None:
    from kvparity.cli.main import main
    from kvparity.core.isolation.inside import here

    verb = arguments[0]
    with ExitStack() as stack:
        for shorten in SHORTEN.get(verb, ()):
            stack.enter_context(shorten())
        stack.enter_context(here())  # the device is pretended in this process alone
        code = main(arguments)
    ended = (*ENDED, 3) if verb == "audit" else ENDED
    return None if code in ended else f"kvparity {verb} ended with {code}"


def _traced(arguments: list[str]) -> str | None:
    """torch traces for no pretended device: see on the CPU that programs launch what eager does."""
    arguments = ["cpu" if each == "cuda" else each for each in arguments] + ["--jobs", "1"]
    folder = arguments.index("--run-dir") + 1
    launched = []
    for number, how in enumerate((contextlib.nullcontext, eager)):
        own = [*arguments[:folder], f"{arguments[folder]}-{number}", *arguments[folder + 1 :]]
        with on_the_cpu(), how():
            if problem := _main(own):
                return problem
        launched.append(forget())
    more = sorted(map(str, launched[0] - launched[1]))
    return f"programs launch what eager steps do not: {more}" if more else None


def _script(name: str) -> str | None:
    if name == "gpu_sanitize.py":
        import gpu_sanitize

        gpu_sanitize.launch("cuda")
    elif name != "gpu_compile.py":
        return f"{name} is not known here"
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Rehearse; 1 if a step did not come to its end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("steps", nargs="*", metavar="STEP", help="default: all")
    parser.add_argument("-v", action="store_true", help="print every form")
    args = parser.parse_args(argv)
    if unknown := set(args.steps) - {step.name for step in STEPS}:
        parser.error(f"no such step: {', '.join(sorted(unknown))}")
    from gpu_coverage import problems, recorded

    chosen = [step for step in STEPS if not args.steps or step.name in args.steps]
    told = []
    for step in chosen:
        found = recorded([step], (9, 0), 1)[step.name]
        words = f"{step.name:<34} {len(found.forms):>4} {found.seconds:6.1f} s"
        print(f"{words} {found.absent or ''}".rstrip(), flush=True)
        if args.v:
            print(found.said, *sorted(map(str, found.forms)), sep="\n    ")
        told += problems([step], {step.name: found})
    print(*told, sep="\n")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
