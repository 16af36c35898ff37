"""Prompts in a file beside the contract: one a line, as text, or as JSON Lines of texts and chats.

``prompts: {file: chats.jsonl}`` becomes ``texts`` or ``chats`` before the contract is checked, so
that all that follows sees prompts, however they were given.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from kvparity_contracts.base import Fault, KeyPath, closest, show
from kvparity_contracts.problems import ContractError, Problem
from kvparity_contracts.yamltext import Data, Text

BIGGEST = 16_000_000
"""Bytes. A workload is compared token by token; no run takes as many prompts as such a file has."""
JSON_LINES = (".jsonl", ".ndjson")
_LINE = "a text, {prompt: …}, {text: …}, or a chat: {messages: [{role: …, content: …}, …]}"
_FILE = {"type": "object", "properties": {"file": {"type": "string"}}, "required": ["file"],
         "additionalProperties": False}  # fmt: skip
_IDS = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}
SCHEMA = {"anyOf": [{"type": "array", "minItems": 1, "items": _IDS}, _FILE]}
"""Of ``prompts``, in the JSON schema: ids, or a file."""


def put_in(text: Text, base: Path, copies: Mapping[Path, Path]) -> tuple[Path, ...]:
    """Replace every ``prompts: {file: …}`` by what the file holds; the files, in order.

    What is wrong with the key is added to the faults of ``text``. ``copies``: what is read in place
    of a file, which may be gone.

    Raises:
        ContractError: what is wrong with a file, each line at its own number.
    """
    files = []
    workloads = text.data.get("workloads") if isinstance(text.data, dict) else None
    for i, workload in enumerate(workloads if isinstance(workloads, list) else ()):
        if not isinstance(workload, dict) or not isinstance(workload.get("prompts"), dict):
            continue
        at: KeyPath = ("workloads", i, "prompts")
        fault = _fault(at, workload, base, copies)
        if fault is not None:
            text.faults.append((text.place(fault.at), fault))
            continue
        file = base / str(workload.pop("prompts")["file"])  # type: ignore[index,call-overload]
        found = _prompts(copies.get(file.resolve(), file))
        key = "texts" if isinstance(found[0], str) else "chats"
        workload[key] = found
        for places in (text.keys, text.values):
            places[("workloads", i, key)] = places[at]
        files.append(file)
    return tuple(files)


def _fault(
    at: KeyPath, workload: dict[str, Data], base: Path, copies: Mapping[Path, Path]
) -> Fault | None:
    given = workload["prompts"]
    assert isinstance(given, dict)
    other = next((key for key in ("prompt_tokens", "texts", "chats") if key in workload), None)
    if other is not None:
        return Fault(at, f"found a file of prompts beside {other!r}", "one of both")
    name = given.get("file")
    if set(given) != {"file"} or not isinstance(name, str) or not name:
        wrong = next((key for key in given if key != "file"), None)
        found = f"the key {wrong!r}" if wrong else show(name)
        near = closest(wrong, ["file"]) if wrong else ""
        return Fault(at, f"found {found}", "lists of token ids, or {file: NAME}", near)
    path = base / name
    if not copies.get(path.resolve(), path).is_file():
        beside = [each.name for each in sorted(path.parent.glob("*"))[:500] if each.is_file()]
        near = closest(path.name, beside)
        expected = "a file of prompts; a relative path begins in the folder of the contract"
        return Fault(
            at,
            f"there is no file {path}",
            expected,
            str(Path(name).with_name(near)) if near else "",
        )
    return None


def _prompts(file: Path) -> list[Data]:
    """Texts, or chats."""
    if file.stat().st_size > BIGGEST:
        message = f"found a file of {file.stat().st_size} bytes"
        raise ContractError([Problem(str(file), 0, 0, "", message, f"at most {BIGGEST}")])
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        message = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise ContractError([Problem(str(file), 0, 0, "", message, "UTF-8 text")]) from None
    numbered = [(n, line.rstrip("\r")) for n, line in enumerate(lines, 1) if line.strip()]
    if file.suffix.lower() not in JSON_LINES:
        found: list[Data] = [line for _, line in numbered]
    else:
        read = [(n, *_read(line)) for n, line in numbered]
        wrong = [(n, told) for n, _, told in read if told]
        found = [prompt for _, prompt, _ in read]
        kinds = {isinstance(each, str) for each in found}
        if not wrong and len(kinds) > 1:
            first = next(n for n, each, _ in read if type(each) is not type(found[0]))
            wrong = [(first, "texts and chats stand in one file")]
        if wrong:
            problems = [Problem(str(file), n, 1, "", told, _LINE) for n, told in wrong[:50]]
            raise ContractError(problems)
    if not found:
        raise ContractError([Problem(str(file), 0, 0, "", "holds no prompt", "one a line")])
    return found


def _read(line: str) -> tuple[Data, str]:
    """(the prompt of a line of JSON, what is wrong with it)."""
    try:
        value = json.loads(line)
    except ValueError as error:
        return None, f"this is not JSON: {error}"
    if isinstance(value, dict):
        keys = [key for key in ("messages", "prompt", "text") if key in value]
        if len(keys) != 1:
            return None, f"found {' beside '.join(map(repr, keys)) or 'no prompt'}"
        value = value[keys[0]]
    if isinstance(value, str) and value:
        return value, ""
    if not isinstance(value, list) or not value:
        return None, f"found {show(value)}"
    return value, next(_wrong(value), "")


def _wrong(chat: list[Data]) -> Iterator[str]:
    """What is no message of a chat."""
    for n, message in enumerate(chat):
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            found = sorted(message) if isinstance(message, dict) else show(message)
            yield f"message {n} of the chat has {found}, not role and content"
        elif not all(isinstance(each, str) and each for each in message.values()):
            yield f"message {n} of the chat has a role or content that is no text"
