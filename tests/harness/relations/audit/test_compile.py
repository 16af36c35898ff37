"""What is compiled is what is launched; what does not compile says so; nothing is done twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from audit_cases import ORDER, SHAPE, SOURCE, mutate, pair

import kvparity
import kvparity_kernels
from kvparity.relations.audit import compile as compiling
from kvparity.relations.audit.compile import compile_all
from kvparity.relations.audit.request import ARCHITECTURES, AuditError, Request, from_json
from kvparity.relations.audit.side import read_side
from kvparity.relations.audit.views import AuditSide


def test_a_request_survives_json() -> None:
    request = Request("decode", "sm_90", SHAPE, ORDER, fusion=True, source=SOURCE)
    assert from_json(request.as_json()) == request


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'sm_91' is unknown; expected one of sm_80, sm_89"):
        Request("decode", "sm_91", SHAPE)


def test_constants_and_formats_are_those_of_the_launch(
    compiled_at: Path, sides: dict[Request, AuditSide]
) -> None:
    requests = pair("sm_90")
    (prefill,), (split, combine) = compile_all(requests, folder=compiled_at)
    for kernel in (prefill, split):
        assert kernel.constants == {
            "ALIGN": 16,
            "BD": 16,
            "BM": 64,
            "BOUNDED": False,
            "CAPPED": False,
            "D": 16,
            "FORMAT": "float",
            "G": 2,
            "GROUP": 0,
            "PAGE": 0,
            "PIECE": 0,
            "RING": False,
            "SKIP": False,
            "SPLIT": 128,
            "TILE": 32,
        }
        assert kernel.dtypes["Q"] == kernel.dtypes["K"] == "bfloat16"
        assert (kernel.num_warps, kernel.num_stages, kernel.fusion) == (4, 2, False)
    assert combine.dtypes["PART_A"] == "float32"
    assert (prefill.name, split.name, combine.name) == (
        "prefill",
        "decode_split",
        "decode_combine",
    )


@pytest.mark.compile
def test_triton_would_compile_the_same_at_launch(compiled_at: Path) -> None:
    roots = [str(Path(each.__file__ or "").parents[1]) for each in (kvparity, kvparity_kernels)]
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    environment = os.environ | {
        "TRITON_INTERPRET": "0",
        "TRITON_CACHE_DIR": str(compiled_at / "triton"),
        "PYTHONPATH": os.pathsep.join([each for each in known if each] + roots),
    }
    program = Path(__file__).with_name("compile_as_launched.py")
    done = subprocess.run(
        [sys.executable, str(program)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"attention.decode_split", "attention.decode_combine"}
    for audited, launched in found.values():
        assert audited == launched


def test_what_is_kept_is_not_compiled_again(
    compiled_at: Path, sides: dict[Request, AuditSide], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object, **more: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(compiling.subprocess, "Popen", never)
    compile_all(pair("sm_90"), folder=compiled_at)
    with pytest.raises(AssertionError, match="a process was started"):
        compile_all([replace(pair("sm_90")[0], fusion=True)], folder=compiled_at)


def test_another_source_is_another_artefact(tmp_path: Path) -> None:
    copy = mutate(tmp_path, "same")
    request = replace(pair("sm_90")[0], source=copy)
    first = compiling._key(request)
    copy.write_text(copy.read_text() + "\n")
    assert compiling._key(request) != first
    moved = copy.rename(tmp_path / "elsewhere.py")
    assert compiling._key(replace(request, source=moved)) != first


@pytest.mark.compile
def test_what_does_not_compile_says_so(tmp_path: Path) -> None:
    broken = mutate(tmp_path, "broken", ("tl.exp2(m - shift)", "tl.exp2(no_such_name)", 2))
    request = replace(pair("sm_90")[1], source=broken)
    with pytest.raises(
        AuditError, match=r"(?s)decode does not compile for sm_90: .*no_such_name is not"
    ):
        compile_all([request], folder=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/record.json"))


def test_code_that_cannot_be_read_says_so(
    compiled_at: Path, sides: dict[Request, AuditSide]
) -> None:
    request = pair("sm_90")[0]
    (kernel,) = compile_all([request], folder=compiled_at)[0]
    with pytest.raises(AuditError, match="prefill for sm_90 is not readable: this is no SASS"):
        read_side(request, [replace(kernel, sass="")])
    with pytest.raises(AuditError, match="launches prefill, prefill; expected 1 kernels"):
        read_side(request, [kernel, kernel])


def test_three_architectures_are_known() -> None:
    assert ARCHITECTURES == {"sm_80": 80, "sm_90": 90, "sm_100": 100}
