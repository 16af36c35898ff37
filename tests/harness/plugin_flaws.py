"""A plugin of pytest that gives kvparity's a flaw: of one case, no test, or one that passes.

``-p plugin_flaws --flaw dropped --flaw-of c003``
"""

from __future__ import annotations

import pytest

FLAWS = ("dropped", "turned")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which flaw, of which case."""
    parser.addoption("--flaw", choices=FLAWS, required=True)
    parser.addoption("--flaw-of", required=True, metavar="CASE")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Plant it."""
    (flawed,) = (each for each in items if ("case", config.getoption("flaw_of")) in
                 each.user_properties)  # fmt: skip
    if config.getoption("flaw") == "dropped":
        items.remove(flawed)
    else:
        flawed.runtest = lambda: None  # type: ignore[method-assign]
