"""What a subject raised lies in the run folder, and the message names the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import naive_pair
import pytest

from kvparity.cli.main import main
from kvparity.core.exit_codes import ExitCode
from kvparity.run import worker

PAIR = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(naive_pair.__file__).parent)!r})
import naive_pair
from naive_pair import prefill


def choose_splits(n):
    if Path({{marker!r}}).exists():
        raise ValueError("no splits\\ud800 for " + str(n))


def decode(*args, kv_lens, **more):
    if int(kv_lens.max()) > {{above}}:
        choose_splits(int(kv_lens.max()))
    return naive_pair.decode(*args, kv_lens=kv_lens, **more)
"""
CONTRACT = """\
version: 1
name: raises
subject: {kind: attention, prefill: 'pair.py:prefill', decode: 'pair.py:decode',
          heads: {query: 2, kv: 1, dim: 4}}
numerics: {execution: float32}
workloads:
  - {name: first, prompt_tokens: [2, 2, 2, 2, 2, 2], generate: 2}
  - {name: second, prompt_tokens: [10], generate: 2}
checks:
  - {name: bits, relation: invariance, paths: [decode]}
controls: [stale-slot]
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_subjects", {})


def write(folder: Path, above: int) -> Path:
    """A pair that raises above so many keys, as long as the file ``marker`` is there."""
    marker = folder / "marker"
    marker.touch()
    (folder / "pair.py").write_text(PAIR.format(marker=str(marker), above=above))
    (folder / "c.yaml").write_text(CONTRACT)
    return folder / "c.yaml"


def verify(contract: Path, *more: str) -> int:
    run = contract.parent / "run"
    return main(["verify", str(contract), "--jobs", "1", "--run-dir", str(run), *more])


def test_it_is_kept_named_and_gone_once_the_run_goes_on(tmp_path: Path, capsys: Any) -> None:
    contract, run = write(tmp_path, 9), tmp_path / "run"
    assert verify(contract, "--json") == ExitCode.ERROR
    out, err = capsys.readouterr()
    file = run / "failures" / "c001.traceback.txt"
    for words in (err, json.loads(out)["error"]):
        assert "case c001: invariance of decode against prefill over second in float32: " in words
        assert "pair.py:decode raised ValueError: no splits" in words
        assert f"its traceback: {file}" in words
        assert "1 finished case is kept" in words
    text = file.read_text()
    assert text.startswith("Traceback (most recent call last)")
    assert 'pair.py", line' in text
    assert "in choose_splits" in text
    assert "ValueError: no splits\\ud800 for 11" in text
    assert [each.name for each in file.parent.iterdir()] == [file.name]
    (tmp_path / "marker").unlink()
    assert verify(contract, "--resume") == ExitCode.HOLDS
    assert not file.exists()


def test_a_run_that_finished_nothing_leaves_it_alone_and_stops_no_other(
    tmp_path: Path, capsys: Any
) -> None:
    contract, run = write(tmp_path, 0), tmp_path / "run"
    for _ in range(2):
        assert verify(contract) == ExitCode.ERROR
        assert str(run / "failures" / "c000.traceback.txt") in capsys.readouterr().err
        left = sorted(str(each.relative_to(run)) for each in run.rglob("*"))
        assert left == ["failures", "failures/c000.traceback.txt"]
    (tmp_path / "marker").unlink()
    assert verify(contract) == ExitCode.HOLDS
    assert not list((run / "failures").iterdir())


def test_a_folder_of_somebody_elses_failures_is_not_taken(tmp_path: Path, capsys: Any) -> None:
    contract, run = write(tmp_path, 99), tmp_path / "run"
    (run / "failures").mkdir(parents=True)
    (run / "failures" / "mine.txt").touch()
    assert verify(contract) == ExitCode.USAGE
    assert "exists and is not empty" in capsys.readouterr().err
