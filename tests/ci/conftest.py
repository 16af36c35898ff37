"""The scripts of ci/ are plain modules; and a small checkout whose one deciding file is mutated."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

CI = Path(__file__).parents[2] / "ci"
sys.path[:0] = [str(CI), str(CI / "studies"), str(Path(__file__).parent)]

DECIDES = '''"""A rule."""

LIMIT = 0.5


def over(value: int | None, limit: float = LIMIT) -> bool:
    if value is None:
        raise ValueError(f"no value, {1 + 1}")
    return any(each > limit for each in (value, -value))


def unseen(value: int) -> int:
    return value + 1
'''
TESTS = """
import time, pytest, decides

def test_rule(): assert decides.over(1) and not decides.over(0.5)
def test_reaches(): decides.over(1), decides.unseen(1)
def test_endless():
    while decides.unseen(1) != 2: time.sleep(0.01)
SEEN = []
def test_first(): SEEN.append(decides.unseen(1))
def test_alone(): assert not SEEN
def test_slow(): time.sleep(5)
@pytest.mark.parametrize("limit", [decides.LIMIT])
def test_named(limit): assert decides.over(limit + 1)
def test_dies():
    if decides.unseen(1) != 2: __import__("os")._exit(0)
@pytest.mark.parametrize("value", [0, 2])
def test_both(value): assert decides.over(value) == (value > 0)
def test_code(code=decides.unseen.__code__): assert decides.unseen.__code__ is code
"""


FAULTS = (
    "".join(
        f"""
[[fault]]
name = "{name}"
file = "harness/decides.py"
find = '''    return any(each > limit for each in (value, -value))'''
replace = '''    value = min(value, 1)
    return any(each > limit + 1 for each in (value, -value))'''
green = "what is off by one and a half would be called right"
tests = []
"""
        for name in (11, 12)
    )
    + """
[[fault]]
name = "does not import"
file = "harness/decides.py"
find = "LIMIT = 0.5"
replace = "import no_such"
green = "nothing: no rule is asked"
tests = []
"""
)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one deciding file, its tests, and the programs."""
    from mutation import changes, faults, fresh, jobs, listed, mutants  # only in the dev extra

    for path, text in (
        ("harness/decides.py", DECIDES),
        ("tests/test_decides.py", TESTS),
        ("ci/faults/rules.toml", FAULTS),
    ):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
    shutil.copytree(CI / "mutation", tmp_path / "ci/mutation")
    for module in (mutants, listed, fresh, changes, faults, jobs):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(faults, "FOLDER", tmp_path / "ci/faults")
    mutants.source.cache_clear()
    return tmp_path
