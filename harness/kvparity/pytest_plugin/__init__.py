"""kvparity under pytest: contracts are collected as tests, and a fixture checks functions.

Registered as a plugin of pytest where kvparity is installed; ``-p kvparity.pytest_plugin`` asks
for it by name. It does nothing, and imports neither torch nor pydantic, until a contract is
collected or its fixture is used.
"""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from kvparity.pytest_plugin.session import RunSession, opened, passed_on

if TYPE_CHECKING:
    from kvparity.pytest_plugin.collect import ContractFile
    from kvparity.pytest_plugin.fixture import Parity

_SESSION = pytest.StashKey[RunSession]()
_CONTRACT = re.compile(r'(^|[{,])\s*["\']?(subject|checks)["\']?\s*:', re.MULTILINE)
_SUFFIXES = (".yaml", ".yml", ".json")


class _Worker(Protocol):
    """What pytest-xdist says of a process that it starts."""

    config: pytest.Config
    workerinput: dict[str, object]


def pytest_addoption(parser: pytest.Parser) -> None:
    """The plugin's two options, and the setting that names contracts."""
    group = parser.getgroup("kvparity")
    group.addoption(
        "--kvparity-device",
        metavar="DEVICE",
        help="cpu or cuda, for contracts and the kvparity fixture (default: as kvparity verify)",
    )
    group.addoption(
        "--kvparity-run-dir",
        metavar="DIR",
        help="where run folders are made (default: .kvparity/runs)",
    )
    parser.addini(
        "kvparity_files",
        type="args",
        default=[],
        help="patterns of contracts that pytest collects, such as contracts/*.yaml, from the root "
        "folder; a contract named on the command line is collected without",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Name this session's run folders."""
    config.stash[_SESSION] = opened(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove what the session's processes shared."""
    if (session := config.stash.get(_SESSION, None)) is not None:
        session.close()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: _Worker) -> None:
    """Processes of pytest-xdist use the folders of the process that started them."""
    passed_on(node.config.stash[_SESSION], node.workerinput)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ContractFile | None:
    """A contract that was named, here or in the settings."""
    if file_path.suffix not in _SUFFIXES:
        return None
    if not (parent.session.isinitpath(file_path) or _matches(parent.config, file_path)):
        return None
    try:
        text = file_path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = "subject:"  # collecting it says why it cannot be read
    if not _CONTRACT.search(text):
        return None  # another plugin's
    from kvparity.pytest_plugin.collect import ContractFile

    found = ContractFile.from_parent(parent, path=file_path)
    found.running = parent.config.stash[_SESSION]
    return found


def _matches(config: pytest.Config, path: Path) -> bool:
    if not path.is_relative_to(config.rootpath):
        return False
    name = path.relative_to(config.rootpath).as_posix()
    return any(fnmatch.fnmatch(name, pattern) for pattern in config.getini("kvparity_files"))


@pytest.fixture
def kvparity(request: pytest.FixtureRequest) -> Parity:
    """:func:`kvparity.verify` and its kin, with this session's device and run folders."""
    from kvparity.pytest_plugin.fixture import Parity

    return Parity(request.config.stash[_SESSION], request.node.nodeid)
