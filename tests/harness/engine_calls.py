"""A contract over the naive pair, called as engines call kernels, and what comes of its paths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import toy

from kvparity.plan.cases import Case, make
from kvparity.relations.bits_and_limits import Comparison
from kvparity.run.unit import Setting, run_unit
from kvparity.subjects.attention_calls import by_keywords
from kvparity.subjects.pair.subject import AttentionSubject, build
from kvparity_contracts.subjects import Attention

README = ["decode", "batched", "batched(17)", "chunked(24)", "permuted", "far"]
"""The paths of the README's smallest contract, and a far cache."""
Found = dict[str, Comparison]


def setting(paths: list[str], controls: Any = "all", **more: Any) -> Setting:
    """A contract over the naive pair and its subject."""
    numerics = {"execution": more.pop("execution", "float32")}
    numerics["kv_cache"] = more.pop("kv_cache", numerics["execution"])
    lengths = more.pop("lengths", [3, 30])
    module, checks = more.pop("module", "naive_pair.py"), more.pop("checks", None)
    document = {
        "kind": "attention", "prefill": f"{module}:prefill", "decode": f"{module}:decode",
        "heads": {"query": 4, "kv": 2, "dim": 8},
    } | more  # fmt: skip
    contract = toy.contract(
        subject=document,
        numerics=numerics,
        workloads=[{"name": "short", "prompt_tokens": lengths, "generate": 4}],
        checks=checks or [{"name": "bits", "relation": "invariance", "paths": paths}],
        controls=controls,
    )
    model = Attention.model_validate(document)
    device, base = torch.device("cpu"), Path(__file__).parent
    return Setting(contract, build(model, **numerics, device=device, seed=1, base=base))


def over(found: Setting, **kernels: Callable[..., Any]) -> Setting:
    """The same over other kernels, which take keywords."""
    subject = found.subject
    assert isinstance(subject, AttentionSubject)
    called = {name: by_keywords(kernel) for name, kernel in kernels.items()}
    return replace(found, subject=subject.with_pair(replace(subject.pair, **called)))


def run(found: Setting) -> Found:
    """Each path's comparison with prefill."""
    results: Found = {}

    def emit(case: Case, result: Comparison, *_: Any) -> None:
        results[str(case.path)] = result

    for unit in make(found.contract).units:
        run_unit(found, unit, tokens=None, done=frozenset(), emit=emit)
    return results


def caught(found: Setting) -> dict[str, bool]:
    """Each planned control, and whether it is caught."""
    zeros = [[0] * n for n in found.contract.workloads[0].totals()]
    return {
        job.control: toy.run_control(found, job, zeros)[0] for job in make(found.contract).controls
    }


def differs(found: Found) -> set[str]:
    return {path for path, result in found.items() if result.outcome == "differs"}
