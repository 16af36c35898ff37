"""The page about codecs: its example is a codec, its table of names is right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from kvparity.core.bits import differing
from kvparity.labs.codec.coding import round_trip
from kvparity.labs.codec.families import FAMILIES
from kvparity.labs.codec.honesty import examine
from kvparity.labs.codec.registry import find_one

PAGE = (Path(__file__).parents[4] / "docs" / "codec.md").read_text()


def test_the_example_is_a_codec(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python title=halves.py\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "halves.py").write_text(code)
    halves = find_one("halves.py:Halves", tmp_path)
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(5, 2, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
        found = examine(halves, x, {}, dtype)
        assert found.alone
        assert found.explained
        exact = not bool(differing(round_trip(halves, x, {}, dtype), x).any())
        assert exact == (dtype == torch.bfloat16)


def test_the_names_of_the_table_are_codecs_with_those_stages() -> None:
    rows = re.findall(r"^\| (`[^|]*) \| ([^|]*) \| ([^|]*) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 4
    for names, _, stages in rows:
        for name in re.findall(r"`([^`]+)`", names):
            codec = find_one(name.replace("(g)", "(16)"), Path())
            assert ", ".join(codec.stages) == stages
            assert codec.name == name.replace("(g)", "(16)")


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "gpt_oss", "qwen3_next", "cohere2"])
def test_the_families_that_are_named_are_known(family: str) -> None:
    assert family in FAMILIES
