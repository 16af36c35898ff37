"""Which tests a command runs is said, and no command that must run all leaves one out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def conftest(request: pytest.FixtureRequest) -> Any:
    """The module of all tests' hooks."""
    (found,) = (it for it in request.config.pluginmanager.get_plugins() if hasattr(it, "COMPILERS"))
    return found


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("", "all, those marked slow"),
        ("not slow", "only those of -m 'not slow' (ci/test -m '' runs all)"),
    ],
)
def test_a_run_says_which_tests_it_runs(conftest: Any, asked: str, says: str) -> None:
    lines: list[str] = []
    config = SimpleNamespace(getoption={"markexpr": asked}.get)
    conftest.pytest_terminal_summary(SimpleNamespace(write_line=lines.append), config)
    assert lines == [conftest.pytest_report_header(config)[1]]
    assert says in lines[0]


@pytest.mark.parametrize(
    ("fixtures", "marks"),
    [(["sides", "tmp_path"], ["compile"]), (["run_compiler"], ["compile"]), (["tmp_path"], [])],
)
def test_what_uses_a_compiler_is_marked(
    conftest: Any, fixtures: list[str], marks: list[str]
) -> None:
    found: list[str] = []
    path = "gpu" if conftest.GPU_RUN else "kernels"
    item = SimpleNamespace(
        path=f"tests/{path}/test_x.py",
        fixturenames=fixtures,
        add_marker=lambda mark: found.append(mark.name),
    )
    conftest.pytest_collection_modifyitems([item])
    assert found == marks


def test_what_leaves_tests_out_and_what_does_not(request: pytest.FixtureRequest) -> None:
    command = "python -m pytest --numprocesses auto --dist worksteal"
    assert (
        f"{command} -m 'not slow and not compile and not browser' \"$@\"\n"
        in (ROOT / "ci/test").read_text()
    )
    for every, left in ((".ci/run", "not cluster"), ("ci/workflows/nightly.yml", "")):
        lines = (ROOT / every).read_text().splitlines()
        asked = [
            line.split("ci/test")[1] for line in lines if line.split("#")[0].find("ci/test") >= 0
        ]
        assert asked == [f" -m '{left}'"], every
    assert "-m" not in request.config.getini("addopts")  # pytest alone leaves nothing out
