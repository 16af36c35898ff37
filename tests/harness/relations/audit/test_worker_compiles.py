"""The process that compiles, called here: what is compiled, written and answered.

Nothing is compiled: the compiler and the disassembler are stand-ins that keep what they are given.
"""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from audit_cases import SHAPE

from kvparity.relations.audit import build, worker
from kvparity.relations.audit import compile as compiling
from kvparity.relations.audit.capture import Launch
from kvparity.relations.audit.request import Request, Shape
from kvparity_kernels.launch import Kernel

KERNEL = Kernel(
    "home.k",
    "the function",
    parameters=("A", "B", "C", "E", "n", "x", "SIZE"),
    constexprs=frozenset({"SIZE"}),
    pointers=frozenset({"A", "B", "C", "E"}),
    scalars=frozenset({"n", "x"}),
    unaligned=frozenset({"B"}),
)


def arguments(**changed: Any) -> dict[str, Any]:
    tensors = {"A": torch.float16, "B": torch.uint8, "E": torch.int64}
    return {
        **{name: torch.empty(1, dtype=dtype, device="meta") for name, dtype in tensors.items()},
        **{"C": None, "n": 3, "x": 1.0, "SIZE": 16},
        **{"num_warps": 4, "num_stages": 3, "enable_fp_fusion": False},
        **changed,
    }


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """What the compiler is asked for."""
    seen: list[SimpleNamespace] = []

    def source(function: object, signature: object, *, constexprs: object, attrs: object) -> Any:
        return SimpleNamespace(
            function=function, signature=signature, constants=constexprs, attributes=attrs
        )

    def compile(source: SimpleNamespace, *, target: object, options: object) -> str:
        seen.append(SimpleNamespace(**vars(source), target=target, options=options))
        return "built"

    names = SimpleNamespace(
        SOURCE=SimpleNamespace(get=lambda: source), TARGET=SimpleNamespace(get=lambda: lambda *a: a)
    )
    monkeypatch.setattr(build, "relied", names)
    monkeypatch.setattr(build, "triton", SimpleNamespace(compile=compile))
    return seen


def test_a_launch_is_compiled_as_it_would_be(asked: list[SimpleNamespace]) -> None:
    assert build.compile_launch(Launch(KERNEL, arguments()), "sm_90") == "built"
    (seen,) = asked
    assert seen.function == "the function"
    assert seen.signature == {
        "A": "*fp16", "B": "*u8", "C": "constexpr", "E": "*i64", "n": "i32", "x": "fp32",
        "SIZE": "constexpr",
    }  # fmt: skip
    assert seen.constants == {"SIZE": 16, "C": None}
    # Pointers that are promised to be aligned, and there; of constants nothing; by place.
    aligned, nothing = [["tt.divisibility", 16]], []
    assert list(seen.attributes.items()) == [
        ((0,), aligned), ((2,), nothing), ((3,), aligned), ((6,), nothing)
    ]  # fmt: skip
    build.compile_launch(Launch(KERNEL, arguments(B=None)), "sm_90")  # promised nothing, and absent
    assert asked[1].attributes == {**seen.attributes, (1,): nothing}
    assert seen.target == ("cuda", 90, 32)
    assert seen.options == {"num_warps": 4, "num_stages": 3, "enable_fp_fusion": False}


@pytest.mark.parametrize(
    ("launched", "asked_for", "compiled"),
    [(False, None, False), (True, None, True), (False, True, True), (True, False, False)],
)
def test_contraction_is_as_launched_or_as_asked_for(
    asked: list[SimpleNamespace], launched: bool, asked_for: bool | None, compiled: bool
) -> None:
    launch = Launch(KERNEL, arguments(enable_fp_fusion=launched))
    build.compile_launch(launch, "sm_100", asked_for)
    assert asked[0].options["enable_fp_fusion"] is compiled
    assert asked[0].target[1] == 100


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        ("float32", "fp32"), ("float16", "fp16"), ("bfloat16", "bf16"), ("uint8", "u8"),
        ("int8", "i8"), ("int16", "i16"), ("int32", "i32"), ("int64", "i64"),
    ],
)  # fmt: skip
def test_types_of_pointers(asked: list[SimpleNamespace], dtype: str, name: str) -> None:
    tensor = torch.empty(1, dtype=getattr(torch, dtype), device="meta")
    build.compile_launch(Launch(KERNEL, arguments(A=tensor)), "sm_80")
    assert asked[0].signature["A"] == f"*{name}"


@pytest.fixture
def disassembler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Prints the file that it is given, and notes each call; ``bad`` is refused."""
    program, log = tmp_path / "nvdisasm", tmp_path / "calls"
    program.write_text(
        f'#!/bin/sh\necho "$1 $2" >> {log}\ngrep -q bad "$3" && {{ echo no cubin >&2; exit 3; }}\n'
        'cat "$3"\n'
    )
    program.chmod(0o755)
    found = SimpleNamespace(NVDISASM=SimpleNamespace(get=lambda: SimpleNamespace(path=program)))
    monkeypatch.setattr(build, "relied", found)
    build.disassemble.cache_clear()
    return log


def test_a_cubin_is_disassembled_once(disassembler: Path) -> None:
    for _ in range(2):
        assert build.disassemble(b"the code") == "the code"
    assert build.disassemble(b"other code") == "other code"
    assert disassembler.read_text().splitlines() == ["-c -ndf"] * 2


def test_what_cannot_be_disassembled_is_an_error_in_words(disassembler: Path) -> None:
    with pytest.raises(build.subprocess.CalledProcessError) as raised:
        build.disassemble(b"bad code")
    assert worker._words(raised.value).endswith("status 3.\nno cubin\n")


def test_the_innermost_reason_is_told() -> None:
    inner, middle, outer = KeyError("name"), ValueError("middle"), RuntimeError("outer")
    outer.__cause__, middle.__cause__ = middle, inner
    assert worker._words(outer) == "KeyError: 'name'"
    assert worker._words(ValueError("alone")) == "ValueError: alone"


@pytest.fixture
def filling(monkeypatch: pytest.MonkeyPatch) -> Request:
    """One kernel, whose texts say how it was compiled; contraction makes other code."""

    def made(launch: Launch, arch: str, fusion: bool | None) -> Any:
        fused = launch.arguments["enable_fp_fusion"] if fusion is None else fusion
        return SimpleNamespace(
            asm={"ttgir": f"gir {arch}", "ptx": f"ptx {arch}", "cubin": f"fused {fused}".encode()},
            metadata=SimpleNamespace(num_warps=2, num_stages=5, enable_fp_fusion=fused),
            hash="abc",
        )

    monkeypatch.setattr(worker, "launches", lambda request: [Launch(KERNEL, arguments())])
    monkeypatch.setattr(worker, "compile_launch", made)
    monkeypatch.setattr(worker, "disassemble", lambda cubin: f"sass {cubin.decode()}")
    monkeypatch.setattr(worker, "ptxas", lambda arch: SimpleNamespace(version=f"for {arch}"))
    return Request("prefill", "sm_80", Shape(4, 2, 16))


@pytest.mark.parametrize("fusion", [None, False, True])
def test_what_is_written_is_what_is_read(
    filling: Request, fusion: bool | None, tmp_path: Path
) -> None:
    request = replace(filling, fusion=fusion)
    folder = tmp_path / "new" / "folders" / "key"
    worker.fill(request, folder)
    assert compiling._read(folder, request) == [
        compiling.Artefact(
            name="k",
            arch="sm_80",
            constants={"SIZE": 16},
            dtypes={"A": "float16", "B": "uint8", "E": "int64"},
            num_warps=2,
            num_stages=5,
            fusion=fusion is True,
            triton=worker.triton.__version__,
            ptxas="for sm_80",
            hash="abc",
            ttgir="gir sm_80",
            ptx="ptx sm_80",
            sass=f"sass fused {fusion is True}",
            strict_sass="sass fused False" if fusion else None,
        )
    ]
    assert [each.name for each in folder.parent.iterdir()] == ["key"]


def test_whoever_was_quicker_is_kept(filling: Request, tmp_path: Path) -> None:
    folder = tmp_path / "key"
    folder.mkdir()
    (folder / "record.json").write_text("of another")
    worker.fill(filling, folder)
    assert (folder / "record.json").read_text() == "of another"
    (folder / "record.json").rename(folder / "something.else")
    with pytest.raises(OSError, match="not empty"):
        worker.fill(filling, folder)


def test_each_request_is_answered_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever ends the process later, what was answered is there."""
    requests = [Request("decode", "sm_90", SHAPE), Request("prefill", "sm_90", SHAPE)]
    lines = [{"request": r.as_json(), "folder": f"at {r.side}"} for r in requests]
    answers, seen, parents = tmp_path / "answers", [], []

    def fill(request: Request, folder: Path) -> None:
        seen.append((request, folder, answers.read_text()))
        if request.side == "decode":
            raise ValueError("no such name")

    monkeypatch.setattr(worker, "fill", fill)
    monkeypatch.setattr(worker, "end_with", parents.append)
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(json.dumps(x) + "\n" for x in lines)))
    with answers.open("w") as out:
        monkeypatch.setattr("sys.stdout", out)
        worker.main()
    first = '{"error": "ValueError: no such name"}\n'
    assert answers.read_text() == first + '{"error": null}\n'
    assert seen == [
        (requests[0], Path("at decode"), ""),
        (requests[1], Path("at prefill"), first),
    ]
    assert parents == [os.getppid()]
