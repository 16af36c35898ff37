"""The parent's side of one process for foreign code.

Requests go down a pipe as pickles, which only the child reads. Answers come up as lines of JSON:
the parent never builds an object that the subject could have made.
What the child is doing stands in a shared page (:mod:`kvparity.core.doing`).
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from mmap import mmap
from multiprocessing.connection import wait
from typing import cast

from kvparity.core import doing, machine
from kvparity.core.isolation.child import DEAF, Boot, Message

NEAR = 0.25
"""Less was free than this part of what a process held: it may have been killed for that."""
GRACE_S = 5.0
"""How long a process may take to end; then it is killed."""
_BOOT = (
    "import json, sys; given = json.loads(sys.argv[1]); sys.path[:] = given['path']; "
    "sys.argv[:] = given['argv']; from kvparity.core.isolation.child import main; main(given)"
)
_QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}
"""Progress bars of other libraries would stick in ours, and fill logs."""


class Process:
    """A child, its pipes and its page. It computes one task at a time."""

    def __init__(self, grace: float = GRACE_S) -> None:
        self.grace = grace
        requests, self._requests = os.pipe()
        self.answers, answers = os.pipe()
        with tempfile.TemporaryFile() as file:
            file.truncate(doing.SIZE)
            self._page = mmap(file.fileno(), doing.SIZE)
            fds = [requests, answers, file.fileno()]
            given: Boot = {
                "path": [os.path.abspath(each) for each in sys.path],  # noqa: PTH100 - '' is here
                "argv": sys.argv,
                "parent": os.getpid(),
                "grace": grace,
                "fds": fds,
            }
            flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
            self._popen: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, *flags, "-c", _BOOT, json.dumps(given)],
                stdin=subprocess.DEVNULL,
                pass_fds=fds,
                start_new_session=True,  # Ctrl-C is the parent's to handle
                env=os.environ | _QUIET,
            )
        os.close(requests)
        os.close(answers)
        self._rest = b""
        self._last = doing.Doing()
        self._peak, self._left = 0, machine.free_memory()
        self._oom_kills = machine.oom_kills()
        self.closed = False
        """Whether nothing can come any more: the child closed its end, or is gone."""

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._popen.pid

    def ask(self, function: Callable[..., object], *arguments: object) -> None:
        """Let the child call ``function``. Its answer comes later."""
        text = pickle.dumps((function, arguments))
        try:
            with os.fdopen(os.dup(self._requests), "wb") as pipe:
                pipe.write(len(text).to_bytes(8, "big") + text)
        except BrokenPipeError:
            pass  # it is dead, which whoever waits for the answer will see

    def done(self) -> None:
        """No more requests: the child is to end."""
        if self._requests >= 0:
            os.close(self._requests)
            self._requests = -1

    def read(self) -> list[Message]:
        """What was said since; call it where :attr:`answers` can be read."""
        part = os.read(self.answers, 1 << 20)
        self.closed |= not part
        *lines, self._rest = (self._rest + part).split(b"\n")
        return [_plain(line) for line in lines]

    def read_rest(self) -> list[Message]:
        """What a child that is dead had still said."""
        found: list[Message] = []
        while not self.closed and wait([self.answers], 0):
            found += self.read()
        return found

    def doing(self) -> doing.Doing:
        """What the child was last seen to do."""
        self._last = doing.read(self._page) or self._last
        return self._last

    def peak(self) -> int:
        """The most bytes that it was seen to hold; of one that is dead, what it was last."""
        if found := machine.peak_of(self.pid):
            self._peak, self._left = found, machine.free_memory()
        return self._peak

    def dead(self) -> bool:
        """Whether it ended. Its process id stays its own until :meth:`kill`."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            return os.waitid(os.P_PID, self.pid, options) is not None
        except ChildProcessError:
            return True

    def kill(self) -> int:
        """End it and all that it started, if it still runs; its return code as subprocess has it.

        SIGKILL and no other signal: a subject may have a handler for those.
        """
        if self._popen.returncode is None:
            self.strike()
            self._popen.wait()
            self.done()
            os.close(self.answers)
        return int(self._popen.returncode)

    def strike(self) -> None:
        """Send SIGKILL to it and all that it started, and wait for nothing."""
        if self._popen.returncode is None:
            try:
                os.killpg(self.pid, signal.SIGKILL)  # the group is its own
            except (ProcessLookupError, PermissionError):
                self._popen.kill()

    def ended(self) -> str:
        """End it; how it ended, in words."""
        code = self.kill()
        return how(code) + (self._no_memory() if code == -signal.SIGKILL else "")

    def _no_memory(self) -> str:
        """Behind a kill that nobody here asked for: whether it was for want of memory, in words."""
        held = f"it held {machine.gib(self._peak)}" if self._peak else ""
        for file, count in machine.oom_kills().items():
            if count > self._oom_kills.get(file, count):
                held = f"; {held}" if held else ""
                return (
                    f" for want of memory (oom_kill rose in {file}{held}); use fewer --jobs, or "
                    "allow more memory"
                )
        left = self._left
        if held and left is not None and left.bytes < NEAR * self._peak:
            free = f"{machine.gib(left.bytes)} of {left.by} were free"
            return f" (out of memory? {held}, and {free}; use fewer --jobs)"
        return " (out of memory?)"


def _plain(line: bytes) -> Message:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    return cast(Message, found) if isinstance(found, dict) else {}


def how(code: int) -> str:
    """How a process ended, in words."""
    if code == DEAF:
        return "the subject closed the pipes that kvparity's processes use"
    if code >= 0:
        return f"the subject ended the process with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"the subject's process was killed by {name}"
