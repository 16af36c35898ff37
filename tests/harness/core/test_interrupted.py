"""A command that is interrupted ends with 130 and one line, at whatever moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kvparity.core.exit_codes import ExitCode

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAYS = "kvparity: interrupted\n"
# What a shell starts in the background has the first one ignored.
BEGIN = "import atexit, signal, sys, time; signal.signal(2, signal.default_int_handler); "
WAIT = "print(flush=True) or time.sleep(20)"
MOMENTS = {
    "importing": (
        "finder = type('Slow', (), {'find_spec': lambda self, name, *_: "
        f"({WAIT}) if name == 'kvparity.cli.main' else None}}); "
        "sys.meta_path.insert(0, finder()); ",
        (int(ExitCode.INTERRUPTED), SAYS),
    ),
    "working": (
        f"import kvparity.cli.main as m; m.main = lambda **_: {WAIT}; ",
        (int(ExitCode.INTERRUPTED), SAYS),
    ),
    "working for C": (  # as torch does while it is imported
        f"import ctypes; run = ctypes.pythonapi.PyRun_String; run.restype = ctypes.py_object; "
        f"where = ctypes.py_object(dict(time=time)); text = {WAIT!r}.encode(); "
        "import kvparity.cli.main as m; m.main = lambda **_: run(text, 257, where, where); ",
        (int(ExitCode.INTERRUPTED), SAYS),
    ),
    "ending": (
        "import kvparity.cli.main as m; m.main = lambda **_: 1; "
        "atexit.register(lambda: print(flush=True) or time.sleep(0.5)); ",
        (1, ""),
    ),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", NUMBERS)
def test_it_ends_with_its_own_answer(number: signal.Signals, moment: str, tmp_path: Path) -> None:
    program, answer = MOMENTS[moment]
    file = tmp_path / "run_by_name.py"  # as -m does, which has an end of its own
    file.write_text(BEGIN + program + "from kvparity.__main__ import command; command()")
    paths = os.pathsep.join([str(tmp_path), *(path for path in sys.path if path)])
    with subprocess.Popen(
        [sys.executable, "-m", file.stem],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05)
        process.send_signal(number)
        said = process.communicate()[1]
    assert (process.returncode, said) == answer


def test_what_whoever_started_us_ignores_is_ignored() -> None:
    program = (
        BEGIN + "signal.signal(signal.SIGHUP, signal.SIG_IGN); import kvparity.cli.main as m; "
        "m.main = lambda **_: print(flush=True) or time.sleep(0.5) or 0; "
        "from kvparity.__main__ import command; command()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)  # as under nohup
    assert process.returncode == 0
