"""Documents of run.json, of one case, with what a test changes."""

from __future__ import annotations

from typing import Any, TypeVar, get_args

from pydantic import BaseModel

from kvparity.core.environment import Environment
from kvparity.plan.cases import Case
from kvparity.plan.kernel_cases import KernelNumerics
from kvparity.plan.planted import Reach
from kvparity.plan.results import CaseLine, ControlLine, Divergence
from kvparity.relations.accuracy.line import Spot
from kvparity.relations.bits_and_limits import Comparison
from kvparity.relations.registry import RELATIONS
from kvparity.report.case_line import case_line
from kvparity.report.document import (
    CheckOfRun,
    ContractOfRun,
    OmittedPath,
    Recheck,
    RunReport,
    TextIds,
    UnplantedControl,
)
from kvparity.report.terminal import render
from kvparity_contracts.paths import PathName

Document = dict[str, Any]


DIVERGENCE = {
    "sequence": "long/0",
    "position": 257,
    "token": 104,
    "column": 0,
    "reference": -2.5,
    "candidate": -2.5000002384185791,
    "reference_bits": "0xc0200000",
    "candidate_bits": "0xc0200001",
    "ulps": 1,
    "reference_digest": "0x00000000000000aa",
    "candidate_digest": "0x00000000000000bb",
    "layer": None,
    "part": None,
    "name": None,
}


def case(**changes: Any) -> Document:
    return {
        "id": "c000",
        "check": "decode reduces like prefill",
        "relation": "invariance",
        "workload": "long",
        "reference": "prefill",
        "path": "decode",
        "dtype": "bfloat16",
        "kv_cache": "bfloat16",
        "temperature": 0.7,
        "rollout": "decode",
        "trainer": "prefill",
        "verdict": "holds",
        "reason": "every bit is equal",
        "tokens": 48,
        "differing_tokens": 0,
        "differing_rows": 0,
        "max_ulp": 0,
        "max_abs": None,
        "max_abs_dlogp": 0.0,
        "approx_kl0": 0.0,
        "clipfrac0": 0.0,
        "first_divergence": None,
    } | changes


def control(**changes: Any) -> Document:
    return {
        "name": "stale-slot",
        "relation": "invariance",
        "caught": True,
        "by": "decode reduces like prefill",
        "seen": "bits differ: 3 of 3 tokens",
        "measured": {},
        "reach": [],
        "workload": "long",
        "path": "decode",
        "expected": "differs",
        "numerics": {"execution": "float32", "kv_cache": "float32"},
    } | changes


def case_of(relation: str, found: Comparison) -> Document:
    """What is written of a case of ``relation`` that gave this."""
    reference = None if relation == "accuracy" else PathName("prefill")
    numerics = KernelNumerics("float32", "float32")
    decode = PathName("decode")
    case = Case("c000", "check", relation, "long", decode, reference, numerics, None, None)
    return case_line(case, found).document()


def report(verdict: str, *cases: Document, **changes: Any) -> Document:
    check = {
        "name": "decode reduces like prefill",
        "relation": "invariance",
        "verdict": verdict,
        "reason": "2 cases, bits are equal; 1 control caught",
        "cases": list(cases),
        "omitted": [],
    }
    return {
        "schema_version": 2,
        "verdict": verdict,
        "contract": {"name": "smoke", "path": "smoke.yaml", "sha256": "ab", "seed": 0},
        "command": "kvparity verify smoke",
        "run_dir": ".kvparity/runs/x",
        "environment": {
            "python": "3.11.7",
            "platform": "Linux",
            "versions": {"torch": "2.9.0", "triton": "3.6.0", "transformers": None},
            "outside_tested": None,
            "device": "cpu",
            "device_name": "Some CPU",
            "triton_mode": "interpreter",
            "tf32": {"matmul": False, "cudnn": False},
            "reduced_precision_reduction": {"float16": True, "bfloat16": True},
            "threads": 1,
            "variables": {},
        },
        "subject": {"kind": "decoder", "cpu_ops": "twin"},
        "kernels": {"attention.prefill": {}},
        "checks": [check],
        "controls": [control()],
        "unplanted": [],
        "recheck": {"paths": 0, "of": 0, "rows": 0, "differing": [], "skipped": None},
        "tiles": {"arch": None},
        "texts": None,
        "elapsed_s": 12.34,
    } | changes


def whole_report(verdict: str, *cases: Document, **changes: Any) -> RunReport:
    """The same as a value."""
    return RunReport.model_validate(report(verdict, *cases, **changes))


AnyValue = TypeVar("AnyValue", bound=BaseModel)


def unchecked(model: type[AnyValue], *entries: Document) -> list[AnyValue]:
    """These as values of a model, whatever they lack and whether or not they can be."""
    fields = [name for name, field in model.model_fields.items() if field.is_required()]
    return [model.model_construct(**(dict.fromkeys(fields) | entry)) for entry in entries]


def unchecked_controls(*entries: Document) -> list[ControlLine]:
    """Controls, and what they reach."""
    lines = ({"measured": {}} | each for each in entries)
    return unchecked(
        ControlLine,
        *(each | {"reach": tuple(unchecked(Reach, *each.get("reach", ())))} for each in lines),
    )


def _unchecked_case(entry: Document) -> CaseLine:
    """The line of its relation; what only its relation has is unchecked, too."""
    relation = str(entry["relation"])
    line = RELATIONS[relation].line
    found = entry | {"first_divergence": _first(Divergence, entry["first_divergence"])}
    if (details := found.pop(relation, None)) is not None:
        (model, _) = get_args(line.model_fields["details"].annotation)
        spots = {key: _first(Spot, details[key]) for key in ("first", "worst") if key in details}
        found["details"] = _first(model, details | spots)
    (value,) = unchecked(line, {"details": None} | found)
    return value


def _first(model: type[AnyValue], entry: Document | None) -> AnyValue | None:
    return None if entry is None else unchecked(model, entry)[0]


def rendered(document: Document) -> str:
    """What a person reads of a report, whether or not it can be."""
    checks = (
        each
        | {
            "cases": tuple(map(_unchecked_case, each["cases"])),
            "omitted": tuple(unchecked(OmittedPath, *each["omitted"])),
        }
        for each in document["checks"]
    )
    parts = {
        "contract": unchecked(ContractOfRun, document["contract"])[0],
        "environment": unchecked(Environment, document["environment"])[0],
        "checks": tuple(unchecked(CheckOfRun, *checks)),
        "controls": tuple(unchecked_controls(*document["controls"])),
        "unplanted": tuple(unchecked(UnplantedControl, *document["unplanted"])),
        "recheck": Recheck.model_validate(document["recheck"]),
        "texts": _first(TextIds, document["texts"]),
    }
    return render(unchecked(RunReport, document | parts)[0])
