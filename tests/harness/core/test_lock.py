"""One writer in a folder at a time: who it is, what a dead one left, where locks do not work."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kvparity.core import lock
from kvparity.core.errors import RunFolderError
from kvparity.core.lock import FILE, held

OTHER = {"work": "shrink", "pid": 7, "user": "ann", "host": "elsewhere", "since": "2026-01-01"}
HERE = OTHER | {"host": socket.gethostname()}
WHO = "shrink, pid 7 of ann on elsewhere, since 2026-01-01"


def left(folder: Path, said: dict[str, object], age_s: float) -> None:
    (folder / FILE).write_text(json.dumps(said))
    then = time.time() - age_s
    os.utime(folder / FILE, (then, then))


def test_the_second_is_told_who_the_first_is(tmp_path: Path) -> None:
    with (
        held(tmp_path, "verify"),
        pytest.raises(RunFolderError) as error,
        held(tmp_path, "shrink"),
    ):
        raise AssertionError("it is taken")
    assert re.fullmatch(
        rf"another kvparity runs in {tmp_path}: verify, pid {os.getpid()} of \S+ on "
        rf"{socket.gethostname()}, since \d+-\d+-\d+ \d+:\d+:\d+ UTC; wait for it, or stop it",
        str(error.value),
    )
    with held(tmp_path, "shrink"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "age_s", "works", "words"),
    [
        (HERE, 1, True, None),  # the kernel knows that it has ended
        (OTHER, 1, True, f"{WHO}; wait for it, or where it has ended for 60 s"),
        (OTHER, 100, True, None),
        (HERE, 1, False, "; wait for it, or where it has ended for 60 s"),
        (HERE, 100, False, None),
    ],
    ids=["dead here", "alive there", "dead there", "no locks", "no locks, dead"],
)
def test_what_a_dead_process_left_is_taken_over_and_said(
    said: dict[str, object], age_s: float, works: bool, words: str | None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    if not works:
        monkeypatch.setattr("kvparity.core.lock.fcntl.flock", flock)
    left(tmp_path, said, age_s)
    for _ in range(2):  # to look does not renew it
        if words is not None:
            with pytest.raises(RunFolderError, match=re.escape(words)), held(tmp_path, "verify"):
                raise AssertionError("it is taken")
    if words is None:
        with held(tmp_path, "verify"):
            assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()
        assert f"was left in use by shrink, pid 7 of ann on {said['host']}" in caplog.text
    assert ("locks do not work in" in caplog.text) == (not works)


def test_a_holder_renews_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "RENEWED_S", 0.02)
    with held(tmp_path, "verify"):
        os.utime(tmp_path / FILE, (0, 0))
        until = time.monotonic() + 10
        while (tmp_path / FILE).stat().st_mtime == 0 and time.monotonic() < until:
            time.sleep(0.01)
        assert (tmp_path / FILE).stat().st_mtime > 0


@pytest.mark.parametrize("another", [True, False])
def test_a_file_that_was_removed_before_it_was_locked_is_no_lock(
    another: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, opened = os.open, list[int]()

    def late(path: Path, *more: int) -> int:
        handle = really(path, *more)
        opened.append(handle)
        if len(opened) == 1:  # the holder ends now, and another begins
            path.unlink()
            os.close(really(path, *more)) if another else None
        return handle

    monkeypatch.setattr("kvparity.core.lock.os.open", late)
    with held(tmp_path, "verify"):
        assert json.loads((tmp_path / FILE).read_text())["work"] == "verify"
    assert len(opened) == 2


def test_no_file_is_left_open_and_none_is_a_program(tmp_path: Path) -> None:
    def opened() -> list[str]:
        return [
            f"{each}"
            for each in Path("/proc/self/fd").iterdir()
            if tmp_path in each.resolve().parents
        ]

    with held(tmp_path, "verify"):
        assert len(opened()) == 1
        assert (tmp_path / FILE).stat().st_mode & 0o111 == 0
        with pytest.raises(RunFolderError), held(tmp_path, "shrink"):
            raise AssertionError("it is taken")
        assert len(opened()) == 1
    assert opened() == []


def test_a_folder_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    os.chown(tmp_path, 54321, -1) if os.getuid() == 0 else monkeypatch.setattr(
        os, "getuid", lambda: 54321
    )
    monkeypatch.setattr("kvparity.core.lock.os.open", refused)
    with pytest.raises(RunFolderError) as error, held(tmp_path, "verify"):
        raise AssertionError("it cannot be written")
    assert str(error.value).startswith(f"cannot write to {tmp_path}: Permission denied; it belongs")


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "link": (lambda file: file.symlink_to(file.parent / "notes"), f"{FILE} there is a link"),
    "pipe": (os.mkfifo, f"{FILE} there is no file"),
    "folder": (Path.mkdir, "Is a directory"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_no_file_is_neither_followed_nor_written(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    make, words = ODD[name]
    make(tmp_path / FILE)
    with pytest.raises(RunFolderError, match=words), held(tmp_path, "verify"):
        raise AssertionError("it was taken")
    assert (tmp_path / "notes").read_text() == "mine"


def test_a_file_of_nobodys_words_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("[" * 100_000)
    with held(tmp_path, "verify"):
        assert json.loads((tmp_path / FILE).read_text())["work"] == "verify"


def test_a_killed_process_holds_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    code = (
        "import sys, time; from pathlib import Path; from kvparity.core.lock import held\n"
        "with held(Path(sys.argv[1]), 'verify'): print('held', flush=True); time.sleep(60)"
    )
    paths = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": paths},
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunFolderError, match=f"pid {other.pid} of"), held(tmp_path, "shrink"):
            raise AssertionError("it is taken")
        other.kill()
    with held(tmp_path, "shrink"):
        assert f"verify, pid {other.pid} of" in caplog.text
