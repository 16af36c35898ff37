"""Workers of a process that was killed end too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from kvparity.orphans import end_with_parent

def nothing():
    pass

if __name__ == "__main__":
    start = {start}
    pool = ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=start)
    # Two tasks that overlap need both workers; then both wait, on a queue that each holds open.
    [f.result() for f in [pool.submit(time.sleep, 0.3) for _ in range(4)]]
    print(*pool._processes, flush=True)
    time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(("start", "left"), [("end_with_parent", 0), ("nothing", 2)])
def test_workers_end_with_a_parent_that_is_killed(tmp_path, start, left):
    file = tmp_path / "program.py"
    file.write_text(PROGRAM.format(start=start))
    paths = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(
        [sys.executable, str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    ) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    try:
        assert len(workers) == 2
        deadline = time.monotonic() + (20 if left == 0 else 2)
        while sum(map(alive, workers)) > left and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1 if left else 0)  # the control: they do stay
        assert sum(map(alive, workers)) == left
    finally:
        for pid in workers:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
