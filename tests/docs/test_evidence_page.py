"""The fields of a report, of its files and of its subjects are those that are told."""

from __future__ import annotations

import json
import re

import pytest
from pages import ROOT, table_rows

from kvparity.plan.cases import make
from kvparity.plan.kernel_cases import KernelCase, KernelNumerics
from kvparity.plan.results import Place
from kvparity.relations.bits_and_limits import Comparison
from kvparity.report.case_line import kernel_line
from kvparity.report.verdict import judge
from kvparity.run.recheck.outcome import Outcome
from kvparity.run.verify import _check
from kvparity_contracts import Contract

EVIDENCE = (ROOT / "docs" / "evidence.md").read_text()
OPEN = ("environment.versions", "environment.variables", "tiles",
        "subject", "kernels", "contract.sources",
        "checks[].cases[].order", "checks[].cases[].audit", "checks[].cases[].trace",
        "checks[].cases[].place.versions",
        "checks[].cases[].cache", "checks[].cases[].liveness",
        "checks[].cases[].invariance", "checks[].cases[].accuracy", "checks[].cases[].parity",
        "checks[].cases[].tp-invariance", "checks[].cases[].reproduction",
        "controls[].measured")  # fmt: skip
"""Mappings whose keys are not fixed, told as ``name.*``."""
RUNS = ("good", "reversed", "too-short", "qwen3")


def fields(value: object, name: str = "") -> set[str]:
    """The dotted names of all scalars in a document."""
    if name in OPEN:
        return {f"{name}.*"}
    if isinstance(value, dict):
        inner = {f for k, v in value.items() for f in fields(v, f"{name}.{k}" if name else k)}
        return inner if value else set()
    if isinstance(value, list):
        return {f for each in value for f in fields(each, f"{name}[]")}
    return {name}


def told(after: str, column: int = 0) -> dict[str, str]:
    """The fields of a table of the page, with their meaning."""
    return {row[column].strip("`"): row[-1] for row in table_rows(EVIDENCE, after)}


def reports(folder):
    return [json.loads((folder / "runs" / name / "run.json").read_text()) for name in RUNS]


def everything(folder) -> set[str]:
    """The fields of the tutorial's reports, and those of a path that is omitted."""
    found = set().union(*(fields(report) for report in reports(folder)))
    omitting = Contract.model_validate(
        {
            "version": 1,
            "name": "omits",
            "subject": {"kind": "decoder", "preset": "tiny"},
            "numerics": {"execution": "float32"},
            "workloads": [{"name": "w", "prompt_tokens": [2], "generate": 1}],
            "checks": [{"name": "c", "relation": "invariance", "paths": ["decode"]}],
        }
    )
    _, judged = judge(omitting, make(omitting), [], [], (), None)
    checks = [_check(each).document() for each in judged]
    found |= fields({"recheck": Outcome({("unit", "path"): "row"}).entry().document()})
    return found | fields({"checks": checks}) | fields({"checks": [{"cases": looked()}]})


def looked() -> list[dict]:
    """Cases of an order check and of an audit, and what only a case of another relation has."""
    numerics = KernelNumerics("float32", "float32")
    cases = (
        KernelCase("c0", "c", "order", numerics, keys=65),
        KernelCase("c1", "c", "audit", numerics, architecture="sm_90"),
    )
    found = [
        kernel_line(case, Comparison("void", "so")).document() | {case.relation: {"verdict": "yes"}}
        for case in cases
    ]
    found += [{"recheck": "differs"}, {"of": 4_096}]
    place = dict.fromkeys(Place.model_fields, "of a run on Ray") | {"versions": {"torch": "2.9"}}
    found += [{"place": None}, {"place": place}]
    return [*found, {"trace": {"layers": 1}}, {"cache": {"layers": 1}}, {"liveness": {"probes": 1}},
            {"parity": {"sequences": 1}}, {"tp-invariance": {"reduce": "fixed"}},
            {"reproduction": {"runs": []}}]  # fmt: skip


def compare(found: set[str], table: dict[str, str]) -> tuple[set[str], set[str]]:
    """(fields that are not told, fields that are told and were not there)."""
    here = {name for name, meaning in table.items() if "CUDA only" not in meaning}
    return found - set(table), here - found


def test_every_field_of_a_report_is_told_and_there(tutorial):
    assert compare(everything(tutorial[0]), told("## The report")) == (set(), set())


def test_a_field_too_many_and_one_too_few_are_seen(tutorial):
    found = everything(tutorial[0])
    table = told("## The report")
    assert compare(found | {"checks[].mood"}, table) == ({"checks[].mood"}, set())
    del table["verdict"]
    assert compare(found, {**table, "mood": "how it felt"}) == ({"verdict"}, {"mood"})


def test_every_field_of_a_unit_is_told_and_there(tutorial):
    lines = (tutorial[0] / "runs" / "good" / "units.jsonl").read_text().splitlines()
    found = set()
    for line in lines:
        unit = json.loads(line)
        found |= {name for name in unit if name != "sequences"}
        found |= {f"sequences[].{name}" for sequence in unit["sequences"] for name in sequence}
    table = {name.removesuffix(".*"): it for name, it in told("A line of `units.jsonl`").items()}
    assert compare(found, table) == (set(), set())


def test_every_file_of_a_run_is_told_and_there(tutorial):
    found = {f"{f.name}/" if f.is_dir() else f.name for f in (tutorial[0] / "runs/good").iterdir()}
    assert found | {"retries.jsonl"} == set(told("# Evidence"))


def test_a_case_that_differs_keeps_both_sides(tutorial):
    from safetensors import safe_open

    differs, *_ = (c for c in reports(tutorial[0])[1]["checks"][0]["cases"] if "evidence" in c)
    with safe_open(tutorial[0] / "runs/reversed" / differs["evidence"], "pt") as file:
        sides = {key.partition(".")[0] for key in file.keys()}  # noqa: SIM118 - no mapping
        assert sides == {"reference", "candidate"}
        assert {key.partition(".")[2] for key in file.keys()} == {"values", "digests", "targets"}  # noqa: SIM118
        assert len(json.loads(file.metadata()["index"])) == differs["tokens"]
    for name in ("values", "digests", "targets"):
        assert f"reference.{name}" in EVIDENCE


@pytest.mark.parametrize(("run", "kind"), [("good", "attention"), ("qwen3", "transformers")])
def test_every_field_of_a_subject_is_told(tutorial, run, kind):
    subject = json.loads((tutorial[0] / "runs" / run / "run.json").read_text())["subject"]
    assert _names(told("depends on its kind")[kind]) == set(subject)


def test_every_field_of_the_decoder_is_told():
    import torch

    from kvparity.subjects.registry import factory
    from kvparity_contracts.subjects import Decoder

    subject = factory("decoder")(
        Decoder(kind="decoder", preset="tiny"),
        execution="float32",
        kv_cache="float32",
        device=torch.device("cpu"),
        seed=0,
        base=ROOT,
    )
    assert _names(told("depends on its kind")["decoder"]) == set(subject.describe())


def _names(cell: str) -> set[str]:
    return set(re.findall(r"`([a-z0-9_]+)`", re.sub(r"\(.*?\)", "", cell)))
