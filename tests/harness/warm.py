"""Commands and their subjects in processes of their own, which need not import everything anew.

New interpreters that import torch, Triton and transformers cost more than most commands compute.
Here one process imports them, and nothing of a subject. For each command it makes a copy of itself,
and that one makes the copies for its subjects before it does anything: what it loads later, they do
not have. Pipes, signals and ends are those of any other process.
"""

from __future__ import annotations

import array
import atexit
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

NEEDED = (
    "kvparity.run.worker",
    *(f"kvparity.cli.{verb}" for verb in ("main", "verify", "progress", "whole")),
    *(f"kvparity.subjects.{name}.subject" for name in ("pair", "decoder", "hf")),
    "kvparity_contracts.loader",
    "torch._dynamo",
    "torch.export",
    *(
        f"transformers.models.{name}.modeling_{name}"
        for name in ("gemma3", "gemma4", "mistral", "qwen3")
    ),
)


@dataclass(frozen=True)
class Done:
    """What a command said, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


class Warm:
    """Runs command lines of kvparity, one after the other, each in a copy."""

    def __init__(self, scratch: Path, server: subprocess.Popen[str]) -> None:
        self.scratch, self.server = scratch, server

    def run(self, *arguments: str, folder: Path | None = None, jobs: int = 1) -> Done:
        """``kvparity ARGUMENTS`` in ``folder``, for a subject in up to ``jobs`` processes."""
        out, err = self.scratch / "out", self.scratch / "err"
        given = [arguments, str(folder or self.scratch), str(out), str(err), jobs, dict(os.environ)]
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(given) + "\n")
        self.server.stdin.flush()
        code = int(self.server.stdout.readline())
        return Done(code, out.read_text(), err.read_text())


@contextmanager
def started(scratch: Path) -> Iterator[Warm]:
    """The process that has imported everything."""
    paths = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    ) as server:
        yield Warm(scratch, server)
        assert server.stdin is not None
        server.stdin.close()
        assert server.wait() == 0


def serve() -> None:
    """Until stdin ends: one line of JSON is a command, its exit code the answer."""
    from kvparity.core.isolation import process

    os.environ.update(process._QUIET)  # as every process of a subject has it, before its imports
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            if not name.startswith("transformers.models."):  # else: a type that this one has not
                raise
    gc.freeze()  # what a collection looks through, every copy would have to copy
    gc.set_threshold(50_000, 20, 100)  # as in the process of the tests
    for line in sys.stdin:
        if not (copy := os.fork()):
            _command(*json.loads(line))
        _, status = os.waitpid(copy, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    os._exit(0)


def _command(
    arguments: Sequence[str], folder: str, out: str, err: str, jobs: int, env: dict[str, str]
) -> NoReturn:
    from kvparity.cli.main import main
    from kvparity.core.isolation import process

    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for number, file in ((0, nowhere), (1, _writing(out)), (2, _writing(err))):
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    spares = [Spare() for _ in range(jobs)]
    process.subprocess = SimpleNamespace(  # type: ignore[attr-defined]
        Popen=lambda command, **more: spares.pop().begin(command, **more),
        DEVNULL=subprocess.DEVNULL,
        _args_from_interpreter_flags=list,
    )
    sys.argv = ["kvparity", *arguments]
    code = main(arguments)
    for spare in reversed(spares):  # a later one holds the ends of those before
        spare.channel.close()
        os.waitpid(spare.pid, 0)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # taking apart all that was imported costs more than most commands


def _writing(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)


class Spare:
    """A copy that waits for its program, and then is what ``subprocess.Popen`` would start."""

    returncode: int | None = None

    def __init__(self) -> None:
        self.channel, theirs = socket.socketpair()
        self.pid = os.fork()
        if not self.pid:
            os.setsid()
            self.channel.close()
            _wait_for_program(theirs)
        theirs.close()

    def begin(
        self,
        command: Sequence[str],
        *,
        stdin: int,
        pass_fds: Sequence[int],
        start_new_session: bool,
        env: dict[str, str],
    ) -> Spare:
        """Run the program ``-c TEXT ARGUMENT``; its argument names the handles ``fds``."""
        assert stdin == subprocess.DEVNULL
        assert start_new_session
        _, _, program, argument = command
        words = json.dumps([program, argument, env]).encode()
        self.channel.sendmsg(
            [len(words).to_bytes(8, "big")],
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [1, 2, *pass_fds]))],
        )
        self.channel.sendall(words)
        self.channel.close()
        return self

    def wait(self) -> int:
        """Its end."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def kill(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGKILL)


def _wait_for_program(channel: socket.socket) -> NoReturn:
    head, handles, _, _ = socket.recv_fds(channel, 8, 16)
    if not head:
        os._exit(0)  # it is not needed
    with channel.makefile("rb") as pipe:
        program, argument, env = json.loads(pipe.read(int.from_bytes(head, "big")))
    for handle in [int(each.name) for each in Path("/proc/self/fd").iterdir()]:
        if handle > 2 and handle not in handles:
            with suppress(OSError):  # the list's own
                os.close(handle)
    for number in (1, 2):  # where the command's lead by now
        stream = handles.pop(0)
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["-c", json.dumps(json.loads(argument) | {"fds": handles})]
    exec(program, {"__name__": "__main__"})
    os._exit(0)


if __name__ == "__main__":
    serve()
