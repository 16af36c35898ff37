"""A server that a check of engines starts is ended with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engine_steps import serving

SERVER = """
import http.server, os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[2], "w").write(f"{os.getpid()} {child.pid}")
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Healthy).serve_forever()
"""


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ended(pids: list[int]) -> bool:
    """Whether none runs; the system may need a moment for what was killed."""
    until = time.monotonic() + 5
    while any(map(runs, pids)) and time.monotonic() < until:
        time.sleep(0.01)
    return not any(map(runs, pids))


def started(code: str, *words: str) -> serving.Command:
    return serving.Command([sys.executable, "-c", code, *words], {"HF_HUB_OFFLINE": "1"})


@pytest.mark.parametrize("raised", [None, KeyboardInterrupt, RuntimeError])
def test_nothing_of_a_server_stays(tmp_path: Path, raised: type[BaseException] | None) -> None:
    port, pids = serving.free_port(), tmp_path / "pids"
    try:
        with serving.served(started(SERVER, str(port), str(pids)), port, tmp_path / "log") as url:
            assert url.endswith(str(port))
            both = [int(each) for each in pids.read_text().split()]
            assert all(map(runs, both))
            if raised is not None:
                raise raised
    except (KeyboardInterrupt, RuntimeError):
        assert raised is not None
    assert ended(both)


SERVES = """
import sys, time
from pathlib import Path
from engine_steps import serving
serving.end_on_signals()
port, log = serving.free_port(), Path(sys.argv[3])
command = serving.Command([sys.executable, "-c", sys.argv[1], str(port), sys.argv[2]], {})
with serving.served(command, port, log):
    print("there", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_ended_stops_its_server(tmp_path: Path, number: signal.Signals) -> None:
    pids = tmp_path / "pids"
    words = [sys.executable, "-c", SERVES, SERVER, str(pids), str(tmp_path / "log")]
    own = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=own) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        process.send_signal(number)
    assert process.returncode == 128 + number
    assert ended([int(each) for each in pids.read_text().split()])


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; sys.exit('no such model')", "ended with code 1: no such model"),
        ("import time; print('loading', flush=True); time.sleep(60)", "in 1 s: loading"),
    ],
)
def test_a_server_that_does_not_come_is_one_sentence(tmp_path: Path, code: str, words: str) -> None:
    began = time.monotonic()
    with (
        pytest.raises(serving.ServeError, match=words),
        serving.served(started(code), serving.free_port(), tmp_path / "log", start_s=1),
    ):
        raise AssertionError("it does not answer")
    assert time.monotonic() - began < 15
