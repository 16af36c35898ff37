"""Who compiles what, where it is kept, and what is said of what went wrong.

A stand-in for the compiling process says what it was given; nothing is compiled.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from audit_cases import SHAPE, SOURCE

import kvparity
import kvparity_kernels
from kvparity.relations.audit import compile as compiling
from kvparity.relations.audit.compile import compile_all
from kvparity.relations.audit.request import AuditError, Request

PROGRAM = f"""#!{sys.executable} -SE
import fcntl, json, os, sys, time
from pathlib import Path
log = Path(os.environ["STAND_IN"])
jobs = [json.loads(line) for line in sys.stdin]
with open(log / "lock", "w") as own, open(Path(jobs[0]["folder"]).parent / "lock", "a") as lock:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        alone = False
    except BlockingIOError:
        alone = True
names = ("TRITON_INTERPRET", "TRITON_CACHE_DIR", "PYTHONPATH")
told = {{"arguments": sys.argv[1:], "alone": alone, "jobs": jobs, "pid": os.getpid()}}
told |= {{name: os.environ[name] for name in names}}
(log / f"{{os.getpid()}}.json").write_text(json.dumps(told))
print("what a library says")
for at, job in enumerate(jobs):
    way = os.environ.get("STAND_IN_WAY", "fine")
    time.sleep(0.05 if way != "sleeps" else 60)
    if way == "dies":
        print("\\n".join(f"line {{n}}" for n in range(12)), file=sys.stderr)
        sys.exit(7)
    if way == "fine" or at:
        place = Path(job["folder"])
        place.mkdir()
        (place / "record.json").write_text("[]")
    print(json.dumps({{"error": None if way == "fine" or at else "why"}}), flush=True)
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the processes were told, each in a dictionary, those with most to do first."""
    program, log = tmp_path / "python", tmp_path / "log"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    log.mkdir()
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setenv("STAND_IN", str(log))

    def read() -> list[dict[str, Any]]:
        found = [json.loads(path.read_text()) for path in log.glob("*.json")]
        return sorted(found, key=lambda each: -len(each["jobs"]))

    return read


def requests(count: int) -> list[Request]:
    return [
        Request("decode", "sm_90", replace(SHAPE, head_dim=16 * n)) for n in range(1, count + 1)
    ]


def test_requests_are_shared_out_and_each_is_compiled_once(told: Any, tmp_path: Path) -> None:
    asked = requests(3)
    folder = tmp_path / "new" / "kept"
    assert compile_all([*asked, asked[0]], folder=folder, jobs=2) == [[]] * 4
    jobs = [[job["request"] for job in each["jobs"]] for each in told()]
    assert jobs == json.loads(
        json.dumps([[asked[0].as_json(), asked[2].as_json()], [asked[1].as_json()]])
    )
    assert compile_all(asked, folder=folder) == [[]] * 3
    compile_all(requests(4), folder=folder, jobs=1)
    assert len(told()) == 3  # of the four only the new one


def test_as_many_processes_as_this_one_may_use(
    told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", {0: {3, 5}}.__getitem__)
    compile_all(requests(5), folder=tmp_path / "kept")
    assert [len(each["jobs"]) for each in told()] == [3, 2]


def test_a_process_compiles_and_finds_this_package(
    told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/some/where", "", "/some/where"]))
    compile_all(requests(1), folder=tmp_path / "kept")
    (seen,) = told()
    assert seen["arguments"] == ["-m", "kvparity.relations.audit.worker"]
    assert seen["alone"]
    assert seen["TRITON_INTERPRET"] == "0"
    assert seen["TRITON_CACHE_DIR"] == str(tmp_path / "kept" / "triton")
    where, *roots = seen["PYTHONPATH"].split(os.pathsep)
    assert where == "/some/where"
    assert [Path(root, name, "__init__.py") for root, name in zip(
        roots, ("kvparity", "kvparity_kernels"), strict=True
    )] == [Path(str(each.__file__)) for each in (kvparity, kvparity_kernels)]  # fmt: skip


def test_what_another_process_compiled_meanwhile_is_not_compiled_again(
    told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (request,) = requests(1)
    place = tmp_path / "kept" / compiling._key(request)
    once = compiling._missing

    def missing(wanted: dict[Path, Request]) -> dict[Path, Request]:
        found = once(wanted)
        place.mkdir(parents=True, exist_ok=True)
        (place / "record.json").write_text("[]")
        return found

    monkeypatch.setattr(compiling, "_missing", missing)
    assert compile_all([request], folder=tmp_path / "kept") == [[]]
    assert told() == []


def test_what_does_not_compile_is_said_and_the_rest_is_kept(
    told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_WAY", "fails")
    asked = requests(2)
    with pytest.raises(AuditError) as raised:
        compile_all(asked, folder=tmp_path / "kept", jobs=1)
    assert str(raised.value) == "decode does not compile for sm_90: why"
    monkeypatch.setattr(compiling, "_compile", None)
    assert compile_all(asked[1:], folder=tmp_path / "kept") == [[]]


def test_a_process_that_dies_is_said(
    told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_WAY", "dies")
    with pytest.raises(AuditError, match=r"^the compiling process ended with 7:\nline 4\n"):
        compile_all(requests(1), folder=tmp_path / "kept")


def test_a_process_that_does_not_end_is_ended(
    told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_WAY", "sleeps")
    monkeypatch.setattr(compiling, "_TIMEOUT_S", 1)
    shown: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        shown.append((done, total))

    with pytest.raises(AuditError, match="compiling took longer than 1 s"):
        compile_all(requests(1), folder=tmp_path / "kept", progress=progress)
    assert set(shown) == {(0, 1)}
    (seen,) = told()
    assert not Path("/proc", str(seen["pid"])).exists()


A, B = requests(2)


def test_few_words_of_a_process_that_died_are_all_said() -> None:
    output, errs = io.StringIO(""), io.StringIO("why")
    assert compiling._errors([(Path("a"), A)], output, errs, 1) == [
        "the compiling process ended with 1:\nwhy"
    ]


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ((None, None), []),
        ((None, "why"), ["decode does not compile for sm_90: why"]),
        (("one", "two"), [f"decode does not compile for sm_90: {n}" for n in ("one", "two")]),
        ((None,), ["the compiling process ended with -9:\n" + "\n".join("23456789")]),
        (("why",), ["decode does not compile for sm_90: why",
                    "the compiling process ended with -9:\n" + "\n".join("23456789")]),
    ],
)  # fmt: skip
def test_what_is_said_of_answers(answers: Sequence[str | None], said: list[str]) -> None:
    """Both streams are read from their beginning, wherever they stand."""
    output = io.StringIO("\nnoise\n".join(json.dumps({"error": a}) for a in answers))
    errs = io.StringIO("\n".join("0123456789"))
    for stream in (output, errs):
        stream.read()
    share = [(Path("a"), A), (Path("b"), B)]
    assert compiling._errors(share, output, errs, -9) == said


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"KVPARITY_AUDIT_CACHE": "/chosen", "XDG_CACHE_HOME": "/cache"}, "/chosen"),
        ({"XDG_CACHE_HOME": "/cache"}, "/cache/kvparity/audit"),
        ({"KVPARITY_AUDIT_CACHE": "", "XDG_CACHE_HOME": ""}, "/home/me/.cache/kvparity/audit"),
    ],
)
def test_where_artefacts_are_kept(
    variables: dict[str, str], folder: str, told: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name in ("KVPARITY_AUDIT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**variables, "HOME": "/home/me"}.items():
        monkeypatch.setenv(name, value)
    assert compiling.cache_folder() == Path(folder)
    monkeypatch.setenv("KVPARITY_AUDIT_CACHE", str(tmp_path / "chosen"))
    assert compile_all([A]) == [[]]
    assert (tmp_path / "chosen" / compiling._key(A) / "record.json").is_file()


def key_with(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    with monkeypatch.context() as context:
        for name, value in variables.items():
            context.setenv(name, value)
        return compiling._key(A)


def test_another_assembler_is_another_artefact(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = compiling._key(A)
    assert key_with(monkeypatch, TRITON_PTXAS_PATH="/a") != plain
    assert key_with(monkeypatch, TRITON_PTXAS_PATH="/a") != key_with(
        monkeypatch, TRITON_PTXAS_PATH="/b"
    )
    assert key_with(monkeypatch, TRITON_CACHE_DIR="/a") == plain
    assert key_with(monkeypatch, MY_PTXAS_PATH="/a") == plain
    one, two = {"TRITON_PTXAS_PATH": "/a"}, {"TRITON_PTXAS_BLACKWELL_PATH": "/b"}
    assert key_with(monkeypatch, **one, **two) == key_with(monkeypatch, **two, **one)


def test_each_request_has_a_place_of_its_own(tmp_path: Path) -> None:
    others = [
        replace(A, side="prefill"), replace(A, arch="sm_80"), replace(A, fusion=True),
        replace(A, shape=replace(A.shape, sinks=True)), replace(A, source=SOURCE), B,
        replace(A, order=replace(A.order, tile=32)),
    ]  # fmt: skip
    assert len({compiling._key(each) for each in (A, *others)}) == len(others) + 1
    copy = tmp_path / "elsewhere.py"
    copy.write_bytes(SOURCE.read_bytes())  # the text counts, not where it is
    assert compiling._key(replace(A, source=copy)) == compiling._key(replace(A, source=SOURCE))


def test_other_kernels_are_other_artefacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def digest() -> str:
        compiling._sources.cache_clear()
        return compiling._sources()

    mine = digest()
    monkeypatch.setattr(kvparity_kernels, "__path__", [str(tmp_path)])
    (tmp_path / "store").mkdir()
    for name in ("one.py", "store/two.py"):
        (tmp_path / name).write_text("")
    found = [mine, digest()]
    for name in ("one.py", "store/two.py"):
        (tmp_path / name).write_text("pass")
        found.append(digest())
    assert len(set(found)) == 4
    monkeypatch.undo()
    assert digest() == mine


@pytest.mark.parametrize("name", ["triton", "pytorch-triton"])
def test_the_version_of_triton_by_either_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(asked: str) -> str:
        if asked != name:
            raise metadata.PackageNotFoundError(asked)
        return "9.8"

    monkeypatch.setattr(metadata, "version", version)
    assert compiling._triton.__wrapped__() == "9.8"
    name = "neither"
    with pytest.raises(AuditError, match="Triton is not installed"):
        compiling._triton.__wrapped__()
