"""What the linter says of a pair that does more than a contract can declare or ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvparity_contracts import lint, load
from kvparity_contracts.linter import LintFinding

SINKS = """\
def sinks(heads):
    return [0.0] * heads

def other(alibi):
    return alibi

def attend(q):
    return q, sinks(8)

def prefill(q):
    return attend(q)

def decode(q, sink_count=0):
    return attend(q)

def plain(synchronised, sinking):
    return synchronised
"""


def found(folder: Path, paths: list[str] | None = None, **subject: Any) -> list[LintFinding]:
    """What is said of the subject of a pair; every key stands on a line of its own."""
    document = {
        "version": 1, "name": "pair",
        "subject": {"kind": "attention", "prefill": "mine.py:prefill", "decode": "mine.py:decode",
                    "heads": {"query": 8, "kv": 2, "dim": 16}} | subject,
        "numerics": {"execution": "float32"},
        "workloads": [{"name": "w", "prompt_tokens": [70], "generate": 4}],
        "checks": [{"name": "bits", "relation": "invariance", "paths": paths or ["decode"]}],
    }  # fmt: skip
    file = folder / "c.yaml"
    file.write_text(json.dumps(document, indent=1))
    return [each for each in lint(load(file)) if each.key.startswith("subject.")]


@pytest.mark.parametrize(
    ("function", "line"),
    [("prefill", 8), ("decode", 13), ("sinks", 1), ("other", 4), ("plain", None)],
)
def test_sinks_and_slopes_of_a_pair_are_said_to_be_undeclared(
    tmp_path: Path, function: str, line: int | None
) -> None:
    """What the two functions reach by name is looked at, and nothing else of their file."""
    (tmp_path / "mine.py").write_text(SINKS)
    both = {"prefill": f"mine.py:{function}", "decode": f"mine.py:{function}"}
    notes = found(tmp_path, **both)
    if line is None:
        assert notes == []
        return
    (note,) = notes  # once, not for each of the functions
    what = "ALiBi slopes (alibi)" if function == "other" else "sinks (sink"
    assert (note.key, note.line, note.col) == ("subject.prefill", 6, 14)
    assert note.message.startswith(f"mine.py:{line} names {what}")
    declared = {"bias": {"kind": "alibi"}} if function == "other" else {"sinks": [-1, 3]}
    assert f"which this contract does not declare (subject.{next(iter(declared))})" in note.message
    assert found(tmp_path, **both, **declared) == []
    assert found(tmp_path, **both, signature="sdpa") == []  # another project's names of keywords


def test_a_function_with_keywords_of_flash_attention_is_told_of_its_signature(
    tmp_path: Path,
) -> None:
    text = "def decode(q, *, softmax_scale, alibi_slopes): ...\ndef prefill(alibi_slopes): ...\n"
    (tmp_path / "mine.py").write_text(text)
    (told,) = found(tmp_path, prefill="some.module:f", decode="mine.py:decode")
    assert "subject.signature: flash-attn" in told.message
    (told,) = found(tmp_path, prefill="mine.py:prefill", decode="some.module:f")
    assert "subject.signature" not in told.message


def test_a_file_that_cannot_be_read_is_no_warning(tmp_path: Path) -> None:
    assert found(tmp_path) == []  # it is missing, which is told elsewhere
    (tmp_path / "mine.py").write_text("def prefill(sinks:\n")
    assert found(tmp_path) == []
    assert found(tmp_path, prefill="some.sinks:alibi", decode="some.sinks:alibi") == []


def test_each_function_of_a_pair_is_looked_at(tmp_path: Path) -> None:
    """A file that is too big to look into is left alone, and the other function still told of."""
    (tmp_path / "mine.py").write_text(SINKS)
    (told,) = found(tmp_path, prefill="some.module:prefill", decode="mine.py:decode")
    assert (told.key, told.line) == ("subject.decode", 7)
    (tmp_path / "mine.py").write_text(SINKS.ljust(4_000_000, "#"))
    assert len(found(tmp_path)) == 1
    (tmp_path / "mine.py").write_text(SINKS.ljust(4_000_001, "#"))
    assert found(tmp_path) == []
    (tmp_path / "other.py").write_text("def decode(slopes_2): ...\nasync def prefill(Alibi): ...\n")
    (told,) = found(tmp_path, decode="other.py:decode")
    assert (told.key, told.message.split(" (")[0]) == (
        "subject.decode", "other.py:1 names ALiBi slopes",
    )  # fmt: skip
    assert len(found(tmp_path, prefill="other.py:prefill", decode="some.module:f")) == 1


@pytest.mark.parametrize(
    ("paths", "window", "asked"),
    [
        (["decode", "chunked(24)"], 32, True),
        (["decode", "chunked(1)"], 32, True),
        (["decode", "streamed(4)"], 32, True),  # of its chunks the last row alone is compared
        (["decode", "chunked(4)"], 32, False),
        (["decode", "chunked(8)"], 32, False),
        (["decode", "chunked(9)"], 32, True),
        (["decode", "verify(1)"], 32, False),
        (["decode", "verify(7)"], 32, False),
        (["decode", "verify(8)"], 32, True),
        (["decode"], 74, False),  # no sequence is longer
        (["decode"], 73, True),
        (["decode"], None, False),
    ],
)
def test_a_window_asks_for_steps_of_a_few_rows(
    tmp_path: Path, paths: list[str], window: int | None, asked: bool
) -> None:
    notes = found(tmp_path, paths, **({} if window is None else {"window": window}))
    assert [each.key for each in notes] == ["subject.window"] * asked
    assert all("verify(3) would" in each.message for each in notes)


@pytest.mark.parametrize(
    ("paths", "page", "asked"),
    [
        (["decode", "batched", "paged(16)", "prefix(4)"], 16, True),
        (["decode", "reset"], 16, False),
        (["prefix-paged(16)"], 16, False),
        (["decode"], None, False),
    ],
)
def test_pages_ask_for_a_path_that_moves_sequences(
    tmp_path: Path, paths: list[str], page: int | None, asked: bool
) -> None:
    notes = found(tmp_path, paths, **({} if page is None else {"page": page}))
    assert [each.key for each in notes if each.key == "subject.page"] == ["subject.page"] * asked


@pytest.mark.parametrize(("path", "asked"), [("chunked(4)", True), ("verify(3)", False)])
def test_steps_of_a_decode_of_many_rows_are_those_of_drafts(
    tmp_path: Path, path: str, asked: bool
) -> None:
    notes = found(tmp_path, [path], window=32, rows="many")
    assert [each.key for each in notes] == ["subject.window"] * asked
