"""The pipes and copies behind fresh processes, with copies that are only said to be made."""

from __future__ import annotations

import json
import os
import pickle
import signal
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from kvparity.core import doing
from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.core.isolation import child
from kvparity.run.recheck import zygote

SEVEN = 7 << 8  # what waitpid says of exit code 7


class Ended(BaseException):
    """In place of the end of the process."""


class Pipe:
    def __init__(self) -> None:
        self.out, self.into = os.pipe()
        self.open = {self.out, self.into}

    def close(self, *handles: int) -> None:
        """These, or what is still open."""
        for handle in handles or tuple(self.open):
            self.open.remove(handle)
            os.close(handle)


@pytest.fixture
def pipes() -> Iterator[tuple[Pipe, Pipe]]:
    """Requests, answers."""
    found = Pipe(), Pipe()
    yield found
    for each in found:
        each.close()


@pytest.fixture(autouse=True)
def ends(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What would have ended this process, or made it end with another."""
    said: list[tuple[str, int]] = []

    def end(code: int) -> None:
        said.append(("exit", code))
        raise Ended

    monkeypatch.setattr(zygote, "_exit", end)
    monkeypatch.setattr(zygote, "end_with", lambda parent: said.append(("with", parent)))
    monkeypatch.setattr(zygote, "_mine", None)
    return said


def closed(handle: int) -> bool:
    try:
        os.fstat(handle)
    except OSError:
        return True
    return False


@pytest.mark.parametrize("size", [0, 1, 255, 256, 70_000, (1 << 20) + 1])
def test_a_message_comes_whole_and_the_next_behind_it(size: int, pipes: tuple[Pipe, Pipe]) -> None:
    pipe, _ = pipes
    text = os.urandom(size)

    def write() -> None:
        zygote._send(pipe.into, text)
        zygote._send(pipe.into, b"next")

    writer = threading.Thread(target=write)
    writer.start()
    assert zygote._receive(pipe.out) == text
    assert zygote._receive(pipe.out) == b"next"
    writer.join()


def test_what_stands_before_a_message_is_its_length(pipes: tuple[Pipe, Pipe]) -> None:
    pipe, _ = pipes
    zygote._send(pipe.into, b"abc")
    assert os.read(pipe.out, 99) == b"\0\0\0\0\0\0\0\3abc"


@pytest.mark.parametrize("written", [b"", b"\0" * 7, b"\0" * 7 + b"\4abc"])
def test_a_message_that_breaks_off_is_empty(written: bytes, pipes: tuple[Pipe, Pipe]) -> None:
    pipe, _ = pipes
    os.write(pipe.into, written)
    pipe.close(pipe.into)
    assert zygote._receive(pipe.out) == b""


# the worker


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch, pipes: tuple[Pipe, Pipe]) -> tuple[Pipe, Pipe]:
    requests, answers = pipes
    monkeypatch.setattr(zygote, "_mine", zygote._Zygote(os.getpid(), requests.into, answers.out))
    return pipes


def test_only_the_process_that_made_its_copy_may_ask(
    asking: tuple[Pipe, Pipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert zygote.here()
    monkeypatch.setattr(zygote, "_getpid", lambda: os.getpid() + 1)
    assert not zygote.here()
    monkeypatch.setattr(zygote, "_mine", None)
    assert not zygote.here()
    with pytest.raises(RuntimeError, match=r"start\(\) comes first"):
        zygote.ask(max, 1, 2)


@pytest.mark.parametrize("value", [3, None, [], {"error": "a value with that name"}])
def test_an_answer_is_the_value(value: Any, asking: tuple[Pipe, Pipe]) -> None:
    requests, answers = asking
    zygote._send(answers.into, json.dumps({"value": value}).encode())
    assert zygote.ask(max, 1, 2) == value
    assert pickle.loads(zygote._receive(requests.out)) == (max, (1, 2))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"error": "x"}, SubjectError),
        ({"error": "x", "unsupported": False}, SubjectError),
        ({"error": "x", "unsupported": True}, UnsupportedError),
    ],
)
def test_an_error_is_raised_here(
    answer: Any, kind: type[Exception], asking: tuple[Pipe, Pipe]
) -> None:
    zygote._send(asking[1].into, json.dumps(answer).encode())
    with pytest.raises(kind, match="a fresh process that has not seen the other side: x") as error:
        zygote.ask(max)
    assert type(error.value) is kind


def test_no_answer_is_an_error(asking: tuple[Pipe, Pipe]) -> None:
    asking[1].close(asking[1].into)
    with pytest.raises(SubjectError, match="the process is gone"):
        zygote.ask(max)


@pytest.mark.parametrize("which", [0, 1])
def test_a_pipe_that_the_subject_closed_is_an_error(which: int, asking: tuple[Pipe, Pipe]) -> None:
    asking[which].close(asking[which].into if which == 0 else asking[which].out)
    with pytest.raises(SubjectError, match="closed the pipe to a fresh process"):
        zygote.ask(max)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The pipes that are made, as they are made."""
    found: list[tuple[int, int]] = []
    pipe = os.pipe

    def watched() -> tuple[int, int]:
        found.append(pipe())
        return found[-1]

    monkeypatch.setattr(os, "pipe", watched)
    return found


def test_a_worker_keeps_its_ends_and_knows_its_copy(
    made: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[int] = []
    monkeypatch.setattr(zygote, "_copied", lambda: 4321)
    monkeypatch.setattr(child, "know", known.append)
    zygote.start()
    (requests, ours), (theirs, answers) = made
    assert zygote._mine == zygote._Zygote(os.getpid(), ours, theirs)
    assert zygote.here()
    assert known == [4321]
    assert [closed(each) for each in (requests, answers, ours, theirs)] == [True] * 2 + [False] * 2
    os.close(ours)
    os.close(theirs)


def test_a_copy_serves_on_the_other_ends_and_ends_with_its_worker(
    made: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, ends: list[tuple[str, int]]
) -> None:
    told: list[Any] = []

    def serve(*handles: int) -> None:
        told.append(handles)
        raise Ended

    monkeypatch.setattr(zygote, "_copied", lambda: 0)
    monkeypatch.setattr(zygote, "_mine", "the worker's own")
    monkeypatch.setattr(zygote, "_serve", serve)
    monkeypatch.setattr(child, "leave", lambda: told.append("left"))
    monkeypatch.setattr(doing, "share", lambda page, stop: told.append((len(page), stop)))
    with pytest.raises(Ended):
        zygote.start()
    (requests, ours), (theirs, answers) = made
    assert told == ["left", (doing.SIZE, child.stop_a_copy), (requests, answers)]
    assert ends == [("with", os.getpid())]
    assert zygote._mine is None
    assert closed(ours)
    assert closed(theirs)
    os.close(requests)
    os.close(answers)


# the copy that makes copies


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (SEVEN, "exit code 7"),
        (1 << 8, "exit code 1"),
        (int(signal.SIGKILL), "SIGKILL"),
        (int(signal.SIGHUP), "SIGHUP"),
        (0, None),
    ],
)
def test_a_copy_that_ends_without_an_answer_is_told_of(
    status: int,
    words: str | None,
    pipes: tuple[Pipe, Pipe],
    monkeypatch: pytest.MonkeyPatch,
    ends: list[tuple[str, int]],
) -> None:
    requests, answers = pipes
    waited: list[tuple[int, int]] = []

    def wait(copy: int, options: int) -> tuple[int, int]:
        waited.append((copy, options))
        return copy, status

    monkeypatch.setattr(zygote, "_copied", lambda: 4321)
    monkeypatch.setattr(zygote, "_wait", wait)
    for text in (b"one", b"two"):
        zygote._send(requests.into, text)
    requests.close(requests.into)
    with pytest.raises(Ended):
        zygote._serve(requests.out, answers.into)
    assert ends == [("exit", 0)]
    assert waited == [(4321, 0)] * 2
    answers.close(answers.into)
    said = [zygote._receive(answers.out) for _ in range(3)]
    whole = json.dumps({"error": f"the subject ended the process ({words})"}).encode()
    assert said == ([whole, whole, b""] if words else [b"", b"", b""])


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("function", "arguments", "answer"),
    [
        (max, (1, 2), '{"value": 2}'),
        (_raise, (UnsupportedError("not here"),), '{"error": "not here", "unsupported": true}'),
        (_raise, (KeyError("gone"),), """{"error": "KeyError: 'gone'"}"""),
        (_raise, (SystemExit(3),), '{"error": "SystemExit: 3"}'),
        (float, ("nan",), '{"error": "ValueError: Out of range'),  # JSON has no word for it
    ],
)
def test_a_copy_computes_answers_and_ends(
    function: Any,
    arguments: tuple[Any, ...],
    answer: str,
    pipes: tuple[Pipe, Pipe],
    monkeypatch: pytest.MonkeyPatch,
    ends: list[tuple[str, int]],
) -> None:
    requests, answers = pipes
    monkeypatch.setattr(zygote, "_copied", lambda: 0)
    zygote._send(requests.into, pickle.dumps((function, arguments)))
    with pytest.raises(Ended):
        zygote._serve(requests.out, answers.into)
    assert zygote._receive(answers.out).decode().startswith(answer)
    assert ends == [("with", os.getppid()), ("exit", 0)]


def test_a_copy_is_made_beside_a_thread_that_holds_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        warnings.warn("multi-threaded, so fork() may lead to deadlocks", DeprecationWarning, 1)
        return 4321

    monkeypatch.setattr(zygote, "_fork", fork)
    assert zygote._copied() == 4321
