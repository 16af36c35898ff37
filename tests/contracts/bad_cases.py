"""A good contract in parts, and the mistakes of ``bad/*.txt`` in place of some."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

GOOD = {
    "version": "version: 1\n",
    "name": "name: good\n",
    "subject": "subject: {kind: decoder, preset: tiny}\n",
    "numerics": "numerics: {execution: float32}\n",
    "workloads": "workloads: [{name: long, prompt_tokens: [250], generate: 8}]\n",
    "checks": "checks: [{name: bits, relation: invariance, paths: [decode]}]\n",
}


@dataclass
class Bad:
    name: str
    text: str  # with § at the place that is told
    key: str
    words: str


def cases() -> Iterator[Bad]:
    for file in sorted((Path(__file__).parent / "bad").glob("*.txt")):
        for paragraph in file.read_text(encoding="utf-8").split("\n# ")[1:]:
            name, rest = paragraph.split("\n", 1)
            text, told = rest.split("=> ")
            key, words = told.strip().split(": ", 1) if told[0] != ":" else ("", told[2:].strip())
            whole = text if file.stem == "whole" else replaced(text)
            yield Bad(f"{file.stem}: {name}", whole, key, words)


def replaced(text: str) -> str:
    """The good contract with the parts of ``text`` instead of its own."""
    parts = dict(GOOD)
    seen: set[str] = set()
    for block in re.split(r"(?m)^(?=\S)", text):
        match = re.match(r"§?(\w+):", block)
        key = match[1] if match else "other"
        parts[key] = parts[key] + block if key in seen else block
        seen.add(key)
    return "".join(parts.values())
