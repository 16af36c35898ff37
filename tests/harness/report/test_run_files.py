"""Files of a run folder that are not what this project wrote: a sentence, in bounded time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvparity.report import run_files
from kvparity.report.run_dir import Evidence, RunFolderError

BAD = {
    "bad UTF-8": (b'{"id": "\xff"}\n', "can't decode"),
    "deep": (b'{"id": ' + b"[" * 200_000 + b"]" * 200_000 + b"}\n", "nested too deeply"),
    "NaN": (b'{"id": NaN}\n', "NaN is no JSON"),
    "a list": (b"[1]\n", "no mapping with 'id'"),
    "no name": (b'{"x": 1}\n', "no mapping with 'id'"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_line_that_is_no_evidence_is_named(name: str, tmp_path: Path) -> None:
    text, words = BAD[name]
    (tmp_path / "cases.jsonl").write_bytes(b'{"id": "c0"}\n' + text)
    with pytest.raises(RunFolderError, match=rf"cases\.jsonl:2 is damaged \(.*{words}"):
        list(Evidence(tmp_path).lines("cases.jsonl"))
    (tmp_path / "identity.json").write_bytes(text)
    with pytest.raises(RunFolderError, match=r"identity\.json is damaged"):
        run_files.whole(tmp_path / "identity.json", "id")


def test_a_pipe_or_a_device_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "cases.jsonl")
    (tmp_path / "identity.json").symlink_to("/dev/zero")
    for read in (
        lambda: list(Evidence(tmp_path).lines("cases.jsonl")),
        lambda: run_files.drop_torn_line(tmp_path / "cases.jsonl"),
        lambda: run_files.whole(tmp_path / "identity.json", "path"),
    ):
        with pytest.raises(RunFolderError, match="is not a regular file"):
            read()
    (tmp_path / "units.jsonl").mkdir()
    with pytest.raises(RunFolderError, match="is not a regular file"):
        list(Evidence(tmp_path).lines("units.jsonl"))


def test_a_line_without_an_end_is_not_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_files, "MOST_BYTES", 100)
    (tmp_path / "cases.jsonl").write_bytes(b'{"id": "c0"}\n' + b"x" * 101)
    with pytest.raises(RunFolderError, match=r"2 is damaged \(a line of over 100 bytes"):
        list(Evidence(tmp_path).lines("cases.jsonl"))
    (tmp_path / "identity.json").write_bytes(b"{" + b" " * 100 + b"}")
    with pytest.raises(RunFolderError, match="over 100 bytes"):
        run_files.whole(tmp_path / "identity.json", "path")


def test_a_torn_line_is_cut_off_through_a_second_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, kept = tmp_path / "cases.jsonl", b'{"id": "c0"}\n' * 20_000
    path.write_bytes(kept + b'{"id": "c1", "x": "' + b"y" * 70_000)
    whole = path.read_bytes()

    def interrupted(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_files.drop_torn_line(path)
    assert path.read_bytes() == whole
    run_files.drop_torn_line(path)
    assert path.read_bytes() == kept
    run_files.drop_torn_line(path)
    assert path.read_bytes() == kept


def test_a_key_that_an_older_identity_lacks_stops_a_resume(tmp_path: Path) -> None:
    evidence = Evidence(tmp_path / "run")
    evidence.start({"path": "c", "tiles": None}, resume=False)
    for other in ({"path": "c", "tiles": None, "mode": None}, {"path": "c"}):
        with pytest.raises(RunFolderError, match=r"cannot be resumed: (mode|tiles) changed"):
            evidence.start(other, resume=True)
    evidence.start({"path": "c", "tiles": None}, resume=True)
