"""Sweeps: every mistake at its place, which cells there are, and what a cell's contract is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from kvparity_contracts.loader import load_bytes
from kvparity_contracts.problems import ContractError
from kvparity_contracts.sweep_file import SCHEMA, cell_contract, load_sweep, schema_text

CONTRACT = """\
version: 1
name: good
subject: {kind: decoder, preset: tiny}
numerics: {execution: [float32, bfloat16]}
workloads: [{name: short, prompt_tokens: [3], generate: 2}]
checks:
  - {name: same bits, relation: invariance, paths: [decode]}
  - {name: close, relation: accuracy, limits: {max_abs_dlogp: 0.1}}
"""
GOOD = """\
version: 1
name: two
contracts: [one.yaml, zero.yaml]
versions:
  - {name: old, packages: {transformers: 5.23.0}}
  - {name: new, packages: {transformers: 5.24.0}, python: there}
devices: [cpu, cuda:1]
dtypes: [bfloat16, float32]
seeds: [0, 7]
include: [{contract: zero.yaml, version: old, seed: 3}]
exclude: [{contract: zero.yaml, dtype: bfloat16}, {device: "cuda:1", version: [old]}]
priorities: [{version: new, seed: 7}, {contract: zero.yaml}]
budget_minutes: 5
"""
MISTAKES = {
    "an unknown key": (", python: there", ", §pyton: there", "(did you mean python?)"),
    "a key that is missing": ("name: two\n", "", "the key 'name' is missing"),
    "no packages": ("{transformers: 5.23.0}", "§{}", "found a mapping, expected at least 1"),
    "a version twice": ("name: new", "name: §old", "'old' is listed twice"),
    "a device": ("cuda:1]", "§gpu]", "found 'gpu'"),
    "a format": ("[bfloat16, float32]", "[bfloat16, §flaot32]", "(did you mean float32?)"),
    "a format twice": ("[bfloat16, float32]", "[float32, §float32]", "listed twice"),
    "no such version": ("version: old, seed: 3", "version: §odl, seed: 3", "did you mean old?"),
    "excluded and not there": (
        "{contract: zero.yaml, d", "{contract: §zro.yaml, d", "did you mean zero.yaml?",
    ),
    "no such seed": ("version: new, seed: 7", "version: new, seed: §8", "one of 0, 7, 3"),
    "a selection of nothing": (
        "{contract: zero.yaml}]", "§{version: old, device: 'cuda:1'}]", "no cell is like this",
    ),
    "a selection of everything": (
        "{contract: zero.yaml}]", "§{}]", "expected one or more of contract",
    ),
    "all is excluded": (
        "exclude: [", "include: []\nexclude: §[{version: [old, new]}, ", "every cell is excluded",
    ),
    "a contract that is not there": (
        "[one.yaml, zero.yaml]", "[one.yaml, §smoek, zero.yaml]", "did you mean smoke?",
    ),
    "a contract with a mistake": (
        "[one.yaml", "[§bad.yaml", "bad.yaml:1:1: there is no such file",
    ),
    "one contract by two names": (
        "[one.yaml,", "[one.yaml, §two.yaml,", "called good, as one.yaml",
    ),
    "a budget": ("budget_minutes: 5", "budget_minutes: §0", "expected a number above 0"),
    "no sweep": (GOOD, "§just words", "expected a sweep: version, name"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).write_text(CONTRACT.replace("max_abs_dlogp: 0.1", LIMITS))
    (tmp_path / "zero.yaml").write_text(
        CONTRACT.replace("name: good", "name: zero").replace(
            "  - {name: close, relation: accuracy, limits: {max_abs_dlogp: 0.1}}\n", ""
        )
    )
    return tmp_path


LIMITS = "float32: {max_abs_dlogp: 0.1}, bfloat16: {max_abs_dlogp: 0.3}"


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_at_its_place(name: str, folder: Path) -> None:
    old, new, words = MISTAKES[name]
    assert GOOD.count(old) == 1
    text = GOOD.replace(old, new)
    if "all is" in name:
        text = text.replace("include: [{contract: zero.yaml, version: old, seed: 3}]\n", "")
    before, mark, after = text.partition("§")
    line, col = (before.count("\n") + 1, len(before) - before.rfind("\n")) if mark else (1, 1)
    file = folder / "sweep.yaml"
    file.write_text(before + after)
    with pytest.raises(ContractError) as caught:
        load_sweep(file)
    told = [str(each) for each in caught.value.problems]
    at = [each for each in told if each.startswith(f"{file}:{line}:{col}: ")]
    assert any(words in each for each in at), told


def test_cells_in_their_order(folder: Path) -> None:
    file = folder / "sweep.yaml"
    file.write_text(GOOD)
    found = load_sweep(file)
    said = [str(cell) for cell in found.sweep.cells]
    assert len(said) == len(set(said)) == 2 * 2 * 2 * 2 * 2 - 8 - 4 - 2 + 1
    first = "one.yaml, cpu, {}, new, seed 7"
    assert said[:2] == [first.format("bfloat16"), first.format("float32")]
    rest = said[6:]
    assert rest[0].startswith("zero")
    assert [each.startswith("zero") for each in rest] == sorted(
        (each.startswith("zero") for each in rest), reverse=True
    )
    assert "zero.yaml, cpu, old, seed 3" in said
    assert not any("cuda:1" in each and "old" in each for each in said)
    jsonschema.validate(json.loads(json.dumps(found.text.data)), json.loads(schema_text()))
    for wrong in ("pyton: x", "devices: [gpu]", "dtypes: [fp32]"):
        data = {**found.text.data, wrong.partition(":")[0]: ["gpu"]}  # type: ignore[dict-item]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(data, json.loads(schema_text()))


def test_the_contract_of_a_cell_has_its_format_and_seed(folder: Path) -> None:
    file = folder / "sweep.yaml"
    file.write_text(GOOD)
    loaded = load_sweep(file)
    cell = next(each for each in loaded.sweep.cells if each.contract == "one.yaml")
    found = cell_contract(loaded, cell)
    assert (found.contract.seed, found.contract.numerics.execution) == (7, ("bfloat16",))
    assert load_bytes(found.raw, "elsewhere/c.yaml").contract == found.contract
    (limits,) = (each.limits for each in found.contract.checks if each.relation == "accuracy")
    assert limits.max_abs_dlogp == 0.3
    as_it_is = cell_contract(loaded, replace(cell, dtype=None, seed=None))
    assert as_it_is.contract == as_it_is.source.contract


SIDES = "{kind: sides, rollout: {kind: recorded, file: x}, trainer: {kind: recorded, file: x}}"
UNFIT = {
    "two sides": ("rollout-and-trainer", "", "its two sides state their own formats"),
    "a limit of another format": (
        "one.yaml", "float32: {max_abs_dlogp: 0.1}", "has no limits for it",
    ),
    "a limit of no format": ("one.yaml", "max_abs_dlogp: 0.1", "limits of check 'close' are for"),
    "another part of it": ("smoke", "", "found 'float32'"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_a_contract_that_cannot_take_a_format_is_an_error(name: str, folder: Path) -> None:
    contract, limits, words = UNFIT[name]
    if limits:
        text = CONTRACT.replace("max_abs_dlogp: 0.1", limits)
        (folder / "one.yaml").write_text(text.replace("[float32, bfloat16]", "float32"))
    file = folder / "sweep.yaml"
    file.write_text(
        f"version: 1\nname: x\ncontracts:\n  - {contract}\ndtypes: [bfloat16]\n"
        "versions: [{name: a, packages: {torch: 2.13.0}}]\n"
    )
    with pytest.raises(ContractError, match="it cannot take bfloat16") as caught:
        load_sweep(file)
    assert str(caught.value).startswith(f"{file}:4:5: ")
    assert words in str(caught.value)
    file.write_text(file.read_text().replace("dtypes: [bfloat16]\n", ""))
    assert load_sweep(file).sweep.cells[0].dtype is None


def test_files_of_a_contract_stay_its_own(folder: Path) -> None:
    (folder / "pair.py").write_text("def prefill():\n    pass\n\n\ndecode = prefill\n")
    (folder / "one.yaml").write_text(
        "version: 1\nname: pair\nsubject: {kind: attention, prefill: pair.py:prefill,"
        " decode: pair.py:decode, heads: {query: 2, kv: 1, dim: 4}}\n"
        "numerics: {execution: float32}\n"
        "workloads: [{name: w, prompt_tokens: [2], generate: 2}]\n"
        "checks: [{name: c, relation: invariance, paths: [decode]}]\n"
    )
    file = folder / "sweep.yaml"
    file.write_text(GOOD.replace(", zero.yaml]", "]").partition("include")[0])
    loaded = load_sweep(file)
    found = json.loads(cell_contract(loaded, loaded.sweep.cells[0]).raw)
    assert found["subject"]["decode"] == f"{folder.resolve()}/pair.py:decode"


def test_the_committed_schema_is_fresh() -> None:
    assert SCHEMA.read_text() == schema_text(), (
        "write it again: kvparity contract schema --sweep > "
        "contracts/kvparity_contracts/library/sweep.schema.json"
    )
