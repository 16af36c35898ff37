"""Files that a contract names and that are not there are told with line and column."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvparity_contracts import ContractError
from kvparity_contracts.files import load_whole

PAIR = {"kind": "attention", "heads": {"query": 2, "kv": 1, "dim": 16}}
SOURCE = """
from math import sqrt as prefil, inf
import os.path

def prefill(): ...
decode = lambda: None
def _private():
    decoded = [each for each in ()]
class _Mine:
    decoder = None
if inf:
    async def late(): ...
"""


BITS = {"name": "bits", "relation": "invariance", "paths": ["decode"]}


def told(tmp_path: Path, subject: dict[str, Any], *checks: dict[str, Any]) -> list[str]:
    """Line, column and words of every problem; the values of the subject stand on lines of own."""
    document = {
        "version": 1, "name": "files", "subject": subject, "numerics": {"execution": "float32"},
        "workloads": [{"name": "w", "prompt_tokens": [70], "generate": 4}],
        "checks": list(checks) or [BITS],
    }  # fmt: skip
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(document, indent=1))
    try:
        load_whole(file)
    except ContractError as error:
        return [str(each).removeprefix(f"{file}:") for each in error.problems]
    return []


def pair(prefill: str, decode: str) -> dict[str, Any]:
    return {**PAIR, "prefill": prefill, "decode": decode}


@pytest.mark.parametrize("name", ["prefill", "decode", "late", "prefil", "inf", "os"])
def test_what_a_file_defines_is_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.py").write_text(SOURCE)
    assert told(tmp_path, pair("mine.py:prefill", f"mine.py:{name}")) == []


def test_a_missing_function_is_told_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SOURCE)
    (line,) = told(tmp_path, pair("mine.py:prefill", "mine.py:decoed"))
    assert line == (
        f"12:13: subject.decode: found 'mine.py:decoed', but {tmp_path}/mine.py has no function "
        "'decoed', expected a function of this file; it offers decode, inf, late, os, prefil, "
        "prefill (did you mean mine.py:decode?)"
    )


def test_a_file_that_is_nested_deeply_is_looked_into(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(f"{SOURCE}x = {' + '.join(['1'] * 2500)}\n")
    assert told(tmp_path, pair("mine.py:prefill", "mine.py:decode")) == []
    (line,) = told(tmp_path, pair("mine.py:prefill", "mine.py:decoed"))
    assert "has no function 'decoed'" in line


def test_a_missing_file_is_told_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SOURCE)
    found = told(tmp_path, pair("mime.py:prefill", "far/mine.py:decode"))
    assert [each.split(": ")[1] for each in found] == ["subject.prefill", "subject.decode"]
    assert f"there is no file {tmp_path}/mime.py, expected a Python file" in found[0]
    assert found[0].endswith("(did you mean mine.py:prefill?)")


def test_what_is_no_python_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("a = 1\ndef f(:\n")
    found = told(tmp_path, pair("mine.py:f", "mine.py:f"))
    assert [f"{tmp_path}/mine.py:2 is not Python: " in each for each in found] == [True, True]
    assert "<unknown>" not in found[0]  # the file is named before
    (tmp_path / "mine.py").write_bytes(b"a = 1\0")
    assert "is not Python" in told(tmp_path, pair("mine.py:f", "mine.py:f"))[0]


@pytest.mark.parametrize(
    "source", ["from os.path import *", "globals()['f'] = 1", "def __getattr__(name): ..."]
)
def test_of_a_module_that_makes_names_nothing_is_said(tmp_path: Path, source: str) -> None:
    (tmp_path / "mine.py").write_text(source)
    assert told(tmp_path, pair("mine.py:f", "kernels.mine:g")) == []


def test_nothing_is_imported(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit(3)\ndef f(): ...\n")
    assert told(tmp_path, pair("mine.py:f", "mine.py:f")) == []


@pytest.mark.parametrize("kind", ["decoder", "transformers"])
def test_a_checkpoint_that_is_not_there(tmp_path: Path, kind: str) -> None:
    more = {"attention": "eager"} if kind == "transformers" else {}
    subject = {"kind": kind, "checkpoint": "model", **more}
    (line,) = told(tmp_path, subject)
    assert line.startswith(
        f"6:17: subject.checkpoint: there is no folder {tmp_path}/model, expected"
    )
    (tmp_path / "models").mkdir()
    assert told(tmp_path, subject)[0].endswith("(did you mean models?)")
    (tmp_path / "model").write_text("x")
    assert f"{tmp_path}/model is a file, expected a folder" in told(tmp_path, subject)[0]
    (tmp_path / "model").unlink()
    (tmp_path / "model").mkdir()
    assert f"the folder {tmp_path}/model holds no config.json" in told(tmp_path, subject)[0]
    (tmp_path / "model" / "config.json").write_text("{}")
    assert told(tmp_path, subject) == []


CUT = {"num_attention_heads": 8, "num_key_value_heads": 4, "intermediate_size": 96}
WRONG = {
    "as it should be": (json.dumps(CUT), []),
    "no KV heads are told": (json.dumps({"num_attention_heads": 8}), []),
    "too few KV heads": (
        json.dumps(CUT | {"num_key_value_heads": 2}),
        ["35:5: checks[1].ranks[2]: found 4 ranks, expected a number that divides "
         "num_key_value_heads (2) of {file}"],
    ),
    "an odd width": (
        json.dumps(CUT | {"intermediate_size": 90}),
        ["35:5: checks[1].ranks[2]: found 4 ranks, expected a number that divides "
         "intermediate_size (90) of {file}"],
    ),
    "words": (json.dumps(CUT | {"num_attention_heads": "x"}), []),
    "no JSON": ("{", []),
    "no object": ("[]", []),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_ranks_that_do_not_divide_a_checkpoint_are_told_before_it_is_loaded(
    name: str, tmp_path: Path
) -> None:
    text, problems = WRONG[name]
    file = tmp_path / "model/config.json"
    file.parent.mkdir()
    file.write_text(text)
    subject = {"kind": "decoder", "checkpoint": "model", "row_blocks": 8}
    over = {"name": "ranks", "relation": "tp-invariance", "ranks": [1, 2, 4]}
    assert told(tmp_path, subject, BITS, over) == [each.format(file=file) for each in problems]
