"""The page of model types: its table is that of its rows, and the types asked for have verdicts."""

from __future__ import annotations

import json

import survey_transformers_families as survey

ROWS = json.loads(survey.OUT.read_text(encoding="utf-8"))["rows"]
ASKED = ("llama", "qwen3", "mistral", "gemma3", "mixtral", "gpt_oss", "gpt_neox", "gpt2", "bloom",
         "phi3", "deepseek_v3", "qwen3_next")  # fmt: skip


def test_the_table_is_that_of_the_rows():
    text = survey.OUT.with_suffix(".md").read_text(encoding="utf-8")
    table = text.partition("<!-- table -->\n")[2].partition("<!-- /table -->")[0]
    assert table.strip() == survey.table(ROWS)


def test_every_type_was_asked_and_none_ended_in_an_internal_error():
    assert {row["type"] for row in ROWS} == set(survey.TYPES)
    assert [row["type"] for row in ROWS if survey.internal(row)] == []
    given = {row["type"] for row in ROWS if row.get("verdict") in ("holds", "differs", "void")}
    assert set(ASKED) <= given


def test_an_internal_error_would_be_told_from_a_refusal():
    assert survey.internal({"exit_code": 3, "words": "internal error: boom"})
    assert not survey.internal({"exit_code": 2, "words": "has no KV cache"})
    assert not survey.internal({"exit_code": 3, "verdict": "error"})
