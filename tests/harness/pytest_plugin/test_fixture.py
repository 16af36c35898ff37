"""Functions of a test, asserted: by the fixture and by ``kvparity.assert_parity``."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvparity.pytest_plugin import collect, fixture  # noqa: F401

pytest_plugins = ["pytester"]
HARNESS = Path(__file__).parents[3] / "harness"
TEST = """
import sys
sys.path.insert(0, {data!r})
from pairs import decode, decode_reversed, decode_wrong_shape, prefill

import kvparity as package

FEW = ["stale-slot", "wrong-input"]
SMALL = dict(heads=(2, 1, 4), lengths=(1, 3), paths=("decode",), controls=FEW)


def test_holds(kvparity):
    assert kvparity.assert_parity(prefill, decode, **SMALL).holds
    assert kvparity.check_pair(prefill, decode_reversed, **SMALL).verdict == "differs"


def test_differs(kvparity):
    kvparity.assert_parity(prefill, decode_reversed, **SMALL)


def test_wrong_shape(kvparity):
    kvparity.assert_parity(prefill, decode_wrong_shape, **SMALL)


def test_wrong_argument():
    package.assert_parity(prefill, decode, heads=(2, 1))
"""


def test_parity_is_asserted(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TEST.format(data=str(Path(__file__).parents[1] / "data")))
    found = pytester.runpytest_inprocess(
        "-p", "kvparity.pytest_plugin", "-p", "no:xdist", "--kvparity-run-dir", "evidence"
    )
    found.assert_outcomes(passed=1, failed=3, warnings=None)
    found.stdout.fnmatch_lines(
        [
            "*assert_parity(prefill, decode_reversed*",
            "E *AssertionError: pair: DIFFERS*",
            "E *sequence lengths/*, position *",
            "E *SubjectError: *decode*shape*",
            "E *ValueError: heads: found (2, 1), expected three numbers*",
        ]
    )
    assert str(HARNESS) not in found.stdout.str(), "no frame of ours"
    folders = [each.name for each in (pytester.path / "evidence").iterdir() if each.is_dir()]
    assert len([name for name in folders if "test-holds" in name]) == 2
