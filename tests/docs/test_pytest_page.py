"""The page about pytest: what it shows is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kvparity.core.isolation.inside import here
from kvparity.pytest_plugin import collect, fixture  # noqa: F401 - a run inside forgets its imports
from kvparity.run import locate_red, worker  # noqa: F401

pytest_plugins = ["pytester"]
PAGE = (Path(__file__).parents[2] / "docs/pytest.md").read_text()
(TEST,) = re.findall(r"```python[^\n]*\n(.*?)```", PAGE, re.DOTALL)
PLUGIN = ("-p", "kvparity.pytest_plugin", "-p", "no:xdist")


@pytest.mark.parametrize(("flip", "verdict"), [(False, "passed"), (True, "failed")])
def test_the_functions_of_the_page(pytester: pytest.Pytester, flip: bool, verdict: str) -> None:
    old = "k_cache[i, :n]"
    assert TEST.count(old) == 1
    pytester.makepyfile(test_kernels=TEST.replace(old, f"{old}.flip(0)") if flip else TEST)
    with here():  # where it parts is not looked for: that is a process of its own
        found = pytester.runpytest_inprocess(*PLUGIN)
    assert found.parseoutcomes().get(verdict) == 2


def test_options_of_the_page_are_those_of_the_plugin(pytester: pytest.Pytester) -> None:
    text = pytester.runpytest_inprocess(*PLUGIN, "--help").stdout.str()
    named = set(re.findall(r"--kvparity-[a-z-]+", PAGE))
    assert named == set(re.findall(r"--kvparity-[a-z-]+", text))
    assert "kvparity_files" in text
