"""Subjects by kind: the project's own need no installation, others come by entry point."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

import kvparity
from kvparity.core.environment import versions
from kvparity.subjects import registry
from kvparity.subjects.base import SubjectError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def offered(monkeypatch):
    """Let packages offer these (name, value) pairs, and nothing else."""

    def offer(*pairs: tuple[str, str]) -> None:
        entries = EntryPoints(EntryPoint(name, value, registry.GROUP) for name, value in pairs)
        monkeypatch.setattr(registry, "entry_points", lambda group: entries.select(group=group))

    return offer


@pytest.mark.parametrize("kind", registry.BUILT_IN)
def test_own_kinds_need_no_entry_point(offered, kind):
    offered()
    build = registry.factory(kind)
    assert f"{build.__module__}:{build.__name__}" == registry.BUILT_IN[kind]


def test_an_entry_point_that_says_the_same_is_no_clash(offered):
    offered(("attention", registry.BUILT_IN["attention"]))
    assert registry.factory("attention").__module__ == "kvparity.subjects.pair.subject"


def test_nobody_takes_the_place_of_an_own_kind(offered):
    offered(("attention", "json:loads"))
    with pytest.raises(SubjectError, match=r"'attention' are offered twice: json:loads, kvparity"):
        registry.factory("attention")


def test_another_package_offers_a_kind(offered):
    offered(("other", "json:loads"), ("other", "json:loads"))
    assert registry.factory("other").__name__ == "loads"
    offered(("other", "json:loads"), ("other", "json:dumps"))
    with pytest.raises(SubjectError, match="'other' are offered twice: json:dumps, json:loads"):
        registry.factory("other")


def test_an_unknown_kind_and_a_module_that_does_not_import_say_so(offered):
    offered(("other", "no_such_module_of_ours:build"))
    with pytest.raises(
        SubjectError, match="'more'; known are attention, decoder, other, server, transformers"
    ):
        registry.factory("more")
    with pytest.raises(SubjectError, match="need a package that does not import"):
        registry.factory("other")


def test_the_version_is_that_of_the_code_that_runs():
    assert versions()["kvparity"] == kvparity.__version__
    assert versions()["torch"]


def test_a_checkout_on_the_path_resolves_its_kinds_and_version():
    """Without any package's metadata: what is installed beside it is not asked."""
    program = (
        "import importlib.metadata as m\n"
        "def gone(name): raise m.PackageNotFoundError(name)\n"
        "m.version, m.entry_points = gone, lambda **_: m.EntryPoints()\n"
        "from kvparity.subjects.registry import factory\n"
        "from kvparity.core.environment import versions\n"
        "print(factory('attention').__module__, versions()['kvparity'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(
                str(ROOT / d) for d in ("harness", "kernels", "contracts")
            )
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["kvparity.subjects.pair.subject", kvparity.__version__]
