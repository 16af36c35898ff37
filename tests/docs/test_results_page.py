"""The results page: its commands exist, its contracts load, its counts are those of the plan."""

from __future__ import annotations

import re

import pytest
from gpu_steps import publish
from pages import INLINE, ROOT, table_rows

from kvparity.plan.cases import make
from kvparity.subjects.pair.callables import load_callable
from kvparity_contracts import find, lint, load

PAGE = ROOT / "docs" / "results" / "README.md"
TEXT = PAGE.read_text()
DEVICE = sorted((PAGE.parent / "device").glob("*.yaml"))
COMMANDS = [code for row in table_rows(TEXT, "## On a CPU") + table_rows(TEXT, "## On a CUDA")
            for code in INLINE.findall(row[1])]  # fmt: skip


def test_every_contract_that_is_named_is_there():
    named = [command.split()[2] for command in COMMANDS if command.startswith("kvparity verify")]
    assert len(named) >= 10
    for name in named:
        assert (ROOT / name).is_file() or find(name).is_file()


def test_every_device_contract_is_on_the_page():
    named = {command.split()[2] for command in COMMANDS if "docs/results/device" in command}
    assert named == {str(file.relative_to(ROOT)) for file in DEVICE}


@pytest.mark.parametrize("file", DEVICE, ids=lambda file: file.stem)
def test_device_contracts_lint_and_their_pairs_load(file):
    loaded = load(file)
    assert lint(loaded) == []
    for name in (loaded.contract.subject.prefill, loaded.contract.subject.decode):
        assert callable(load_callable(name, file.parent))


def test_counts_are_those_of_the_plan():
    counted = 0
    for _, command, result in table_rows(TEXT, "## On a CPU"):
        told = re.search(r"(\d+) cases, (\d+) of (\d+) controls", result)
        if told:
            name = command.strip("`").split()[2]
            file = ROOT / name if "/" in name else find(name)
            work = make(load(file).contract)
            cases = sum(len(unit.cases) for unit in work.units) + len(work.kernel_cases)
            controls = len(work.every_control)
            assert [int(n) for n in told.groups()] == [cases, controls, controls], command
            counted += 1
    assert counted >= 3


def test_the_cuda_column_is_what_the_evidence_says():
    """Without evidence a row says "not measured"; with evidence, what the program says."""
    rows = table_rows(TEXT, "## On a CUDA device")
    assert rows
    assert publish.filled(TEXT, publish.evidence()) == TEXT, "run: ci/gpu_steps/publish.py DIR"
    measured = {one.step for one in publish.evidence()}
    for row in rows:
        steps = {name for names in publish.ONLY.findall(row[1]) for name in names.split()}
        assert (row[2] == "not measured") == (not steps & measured), row


def test_a_claim_without_evidence_is_seen():
    claimed = TEXT.replace("| not measured |", "| holds |", 1)
    assert claimed != TEXT
    assert publish.filled(claimed, publish.evidence()) == TEXT
