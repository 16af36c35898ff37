"""All compiling is done once per session, in a folder of its own.

``audit_cases`` is a plain module beside these tests.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from kvparity.relations.audit.compile import compile_all
from kvparity.relations.audit.request import ARCHITECTURES, Request
from kvparity.relations.audit.side import read_side
from kvparity.relations.audit.views import AuditSide

sys.path.insert(0, str(Path(__file__).parent))

import audit_cases
import feature_cases


@pytest.fixture(scope="session")
def compiled_at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with every artefact that these tests need, shared by parallel test processes.

    Who runs the tests again and again (``ci/mutants``) names one that stays.
    """
    if kept := os.environ.get("KVPARITY_TESTS_COMPILED"):
        return Path(kept)
    base = tmp_path_factory.getbasetemp()
    return (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "audit"


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, audit_cases.Planted]:
    return audit_cases.plant(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="session")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> dict[str, audit_cases.Pair]:
    return feature_cases.plant(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="session")
def sides(
    compiled_at: Path,
    planted: dict[str, audit_cases.Planted],
    faulty: dict[str, audit_cases.Pair],
) -> dict[Request, AuditSide]:
    """Every request of these tests, compiled and read."""
    wanted = [r for arch in ARCHITECTURES for r in audit_cases.pair(arch)]
    wanted += [r for each in (*feature_cases.SOUND.values(), *faulty.values()) for r in each]
    for each in planted.values():
        wanted += [*each.faulty, *each.sound]
    requests = list(dict.fromkeys(wanted))
    compiled = compile_all(requests, folder=compiled_at)
    return {r: read_side(r, kernels) for r, kernels in zip(requests, compiled, strict=True)}
