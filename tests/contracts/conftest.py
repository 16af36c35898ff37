from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kvparity_contracts import LoadedContract, load

sys.path.insert(0, str(Path(__file__).parent))  # helpers are plain modules beside the tests

GOOD = """\
version: 1
name: good
subject: {kind: decoder, preset: tiny, order: {split: 128, tile: 64}}
numerics: {execution: [float32, bfloat16], temperatures: [1.0, 0.7]}
workloads:
  - {name: short, prompt_tokens: [3, 17], generate: 8}
  - {name: long, prompt_tokens: [250], generate: 8}
checks:
  - {name: same bits, relation: invariance, paths: [decode, batched, chunked(7)]}
  - {name: close, relation: accuracy, limits: {max_abs_dlogp: 0.1}}
controls: all
"""

Place = tuple[int, int]


@pytest.fixture
def marked(tmp_path: Path) -> Callable[..., tuple[LoadedContract, Place]]:
    """Load the good contract after replacing some of its text; also, the line and column of §."""

    def with_changes(*changes: tuple[str, str]) -> tuple[LoadedContract, Place]:
        text = GOOD
        for old, new in changes:
            assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the text"
            text = text.replace(old, new)
        before, _, after = text.partition("§")
        file = tmp_path / "c.yaml"
        file.write_text(before + after, encoding="utf-8")
        return load(file), (before.count("\n") + 1, len(before) - before.rfind("\n"))

    return with_changes


@pytest.fixture
def loads(marked: Callable[..., tuple[LoadedContract, Place]]) -> Callable[..., LoadedContract]:
    """Load the good contract after replacing some of its text."""
    return lambda *changes: marked(*changes)[0]
