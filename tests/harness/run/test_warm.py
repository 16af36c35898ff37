"""Commands that start warm have processes as others have: their own, with nothing left over."""

from __future__ import annotations

import json
import os
from pathlib import Path

from warm import Warm

from kvparity.core.exit_codes import ExitCode

PAIR = Path(__file__).parents[1] / "naive_pair.py"
CONTRACT = """\
version: 1
name: where
about: A pair that tells where it is imported.
subject: {kind: attention, prefill: 'pair.py:prefill', decode: 'pair.py:decode',
          heads: {query: 2, kv: 1, dim: 4}}
numerics: {execution: float32}
workloads: [{name: w, prompt_tokens: [3], generate: 3}]
checks: [{name: bits, relation: invariance, paths: [decode]}]
controls: [wrong-input]
"""
TELLS = """
import os, sys
first = not hasattr(sys, "been_here")
sys.been_here = True
with open("seen", "a") as file:
    file.write(f"{os.getpid()} {os.getppid()} {first}\\n")
"""


def seen(folder: Path, warm: Warm) -> list[list[str]]:
    (folder / "seen").unlink(missing_ok=True)
    asked = ["verify", "contract.yaml", "--device", "cpu", "--json"]
    done = warm.run(*asked, "--run-dir", os.urandom(4).hex(), "--jobs", "1", folder=folder)
    report = json.loads(done.stdout)
    assert "error" not in report, done.stderr
    assert report["recheck"]["skipped"] is None
    assert report["recheck"]["rows"] > 0
    return [line.split() for line in (folder / "seen").read_text().splitlines()]


def test_each_command_and_its_subject_have_processes_of_their_own(
    tmp_path: Path, warm: Warm
) -> None:
    (tmp_path / "pair.py").write_text(PAIR.read_text() + TELLS)
    (tmp_path / "contract.yaml").write_text(CONTRACT)
    first, second = seen(tmp_path, warm), seen(tmp_path, warm)
    own = {str(os.getpid()), str(warm.server.pid)}
    for found in (first, second):
        assert len(found) >= 2  # the subject's process, and fresh ones
        assert all(new == "True" for _, _, new in found)
        assert not {process for pid, parent, _ in found for process in (pid, parent)} & own
    assert not {pid for pid, _, _ in first} & {pid for pid, _, _ in second}


def test_a_subject_that_ends_its_process_does_not_choose_the_exit_code(
    tmp_path: Path, warm: Warm
) -> None:
    (tmp_path / "pair.py").write_text(PAIR.read_text() + "\nimport os\nos._exit(7)\n")
    (tmp_path / "contract.yaml").write_text(CONTRACT)
    done = warm.run("verify", "contract.yaml", "--device", "cpu", "--jobs", "1", folder=tmp_path)
    assert done.returncode == ExitCode.ERROR
    assert "exit code 7" in done.stderr
