"""The page about Python: what it shows is run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import kvparity

PAGE = (Path(__file__).parents[2] / "docs/python.md").read_text()
BLOCKS = re.findall(r"```python[^\n]*\n(.*?)```", PAGE, re.DOTALL)


def test_the_pair_of_the_page_holds_and_a_broken_one_does_not(tmp_path: Path) -> None:
    broken = BLOCKS[0].replace("k_cache[i, :n]", "k_cache[i, :n].flip(0)")
    for text, code in ((BLOCKS[0], 0), (broken, 1)):
        (tmp_path / "pair.py").write_text(text)
        done = subprocess.run([sys.executable, "pair.py"], cwd=tmp_path, capture_output=True)
        assert done.returncode == code, done.stderr.decode()
    assert b"DIFFERS" in done.stderr


def test_what_the_page_names_is_there() -> None:
    for name in re.findall(r"kvparity\.(\w+)\(", PAGE):
        assert callable(getattr(kvparity, name))
    for name in re.findall(r"report\.(\w+)", PAGE) + re.findall(r"`\.(\w+)`", PAGE):
        if name not in ("problems",):
            assert hasattr(kvparity.Report, name) or name == "run", name
