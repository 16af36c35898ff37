"""Prompts in a file: what it may hold, and what is said of one that holds something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from kvparity_contracts.json_schema import schema
from kvparity_contracts.loader import LoadedContract, load
from kvparity_contracts.problems import ContractError

CHAT = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
SAID = [("system", "be brief"), ("user", "hi")]


def document(**workload: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "name": "x",
        "subject": {"kind": "transformers", "attention": "sdpa", "checkpoint": "model"},
        "numerics": {"execution": "float32"},
        "workloads": [{"name": "w", "generate": 2, **workload}],
        "checks": [{"name": "c", "relation": "invariance", "paths": ["decode"]}],
    }


def loaded(folder: Path, name: str, text: str | bytes, **changes: Any) -> LoadedContract:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    whole = document(prompts={"file": name}) | changes
    (folder / "x.yaml").write_text(json.dumps(whole, indent=1))
    return load(folder / "x.yaml")


GOOD = {
    "lines": ("p.txt", "how now\r\n\n  brown cow\n", ["how now", "  brown cow"]),
    "a mark of order": ("p.txt", "\ufeffhow", ["how"]),
    "texts": ("p.jsonl", '"a\\nb"\n{"prompt": "c", "id": 7}\n\n{"text": "d"}', ["a\nb", "c", "d"]),
    "chats": ("p.jsonl", json.dumps({"messages": CHAT, "id": 1}), [SAID]),
    "chats of prompts": (
        "p.ndjson", json.dumps({"prompt": CHAT}) + "\n" + json.dumps(CHAT), [SAID] * 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", GOOD)
def test_a_file_gives_its_prompts(kind: str, tmp_path: Path) -> None:
    name, text, prompts = GOOD[kind]
    found = loaded(tmp_path, name, text)
    (workload,) = found.contract.workloads
    chats = [[(each.role, each.content) for each in chat] for chat in workload.chats or ()]
    assert (list(workload.texts or ()) or chats) == prompts
    assert len(workload.lengths()) == len(prompts)
    assert found.prompt_files == (tmp_path / name,)
    assert not found.contract.counted(workload)


BAD = {
    "no JSON": ('"a"\n{nope', "p.jsonl:2:1: this is not JSON: "),
    "no prompt": ('{"question": "a"}', "p.jsonl:1:1: found no prompt, expected a text, "),
    "two prompts": ('{"prompt": "a", "text": "b"}', ":1:1: found 'prompt' beside 'text'"),
    "a number": ("7", ":1:1: found 7, expected"),
    "nothing in it": ('{"text": ""}', ":1:1: found ''"),
    "an empty chat": ('{"messages": []}', ":1:1: found an empty list"),
    "a message without a role": ('\n[{"content": "a"}]', ":2:1: message 0 of the chat has"),
    "a message with more": (
        '[{"role": "a", "content": "b", "name": "c"}]',
        ":1:1: message 0 of the chat has ['content', 'name', 'role'], not role and content",
    ),
    "content that is no text": ('[{"role": "a", "content": [1]}]', "that is no text"),
    "both kinds": ('"a"\n"b"\n[{"role": "a", "content": "b"}]', ":3:1: texts and chats"),
    "nothing": ("\n \n", "p.jsonl: holds no prompt, expected one a line"),
    "other bytes": (b"\xff\xfe\x00", "p.jsonl: cannot be read: 'utf-8'"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_wrong_line_is_told_with_its_number(kind: str, tmp_path: Path) -> None:
    text, words = BAD[kind]
    with pytest.raises(ContractError) as found:
        loaded(tmp_path, "p.jsonl", text)
    assert words in str(found.value)


def test_every_wrong_line_is_told(tmp_path: Path) -> None:
    with pytest.raises(ContractError) as found:
        loaded(tmp_path, "p.jsonl", "1\n2\n3")
    assert [each.line for each in found.value.problems] == [1, 2, 3]


KEYS = {
    "no such file": ({"file": "q.txt"}, {}, "(did you mean p.txt?)"),
    "a misspelt key": ({"fil": "p.txt"}, {}, "found the key 'fil', expected"),
    "another key": ({"file": "p.txt", "n": 1}, {}, "found the key 'n'"),
    "no name": ({"file": 3}, {}, "found 3, expected lists of token ids, or {file: NAME}"),
    "a folder": ({"file": "."}, {}, "there is no file"),
    "texts beside it": ({"file": "p.txt"}, {"texts": ["a"]}, "beside 'texts'"),
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_wrong_key_is_told_at_its_place(kind: str, tmp_path: Path) -> None:
    prompts, more, words = KEYS[kind]
    (tmp_path / "p.txt").write_text("a")
    text = json.dumps(document(prompts=prompts, **more), indent=1)
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ContractError) as found:
        load(tmp_path / "x.yaml")
    line = next(n for n, each in enumerate(text.splitlines(), 1) if '"prompts"' in each)
    assert f"x.yaml:{line}:" in str(found.value)
    assert words in str(found.value)
    assert len(found.value.problems) == 1


def test_chats_need_a_checkpoint(tmp_path: Path) -> None:
    subject = {"kind": "transformers", "attention": "sdpa", "config": {"model_type": "llama"}}
    with pytest.raises(ContractError, match=r"workloads\[0\].*found chats, and the subject has no"):
        loaded(tmp_path, "p.jsonl", json.dumps(CHAT), subject=subject)


def test_an_editor_takes_a_file_and_ids(tmp_path: Path) -> None:
    check = Draft7Validator(schema())
    assert not list(check.iter_errors(document(prompts={"file": "p.jsonl"})))
    assert not list(check.iter_errors(document(prompts=[[1, 2]])))
    assert not list(check.iter_errors(document(chats=[CHAT])))
    for wrong in ({"fil": "p"}, {"file": 1}, [], [[]], [["a"]]):
        assert list(check.iter_errors(document(prompts=wrong))), wrong
