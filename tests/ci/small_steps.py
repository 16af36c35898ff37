"""The steps of ci/gpu at their smallest size, for a CPU: the same commands on smaller contracts."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from gpu_steps.steps import ROOT, RUN, Step
from ruamel.yaml import YAML

from kvparity_contracts import find

CANNOT = {
    "tests": "they need a device; tests/kernels/test_gpu_helpers.py runs their helpers",
    "bench": "times of kernels in Triton's interpreter would say nothing",
    "sanitizer": "it watches a device; tests/ci/test_gpu_sanitize.py runs what it watches",
    **dict.fromkeys(
        ("order-sdpa-efficient-bfloat16", "order-sdpa-efficient-float32",
         "order-sdpa-cudnn-bfloat16"),
        "PyTorch has this backend on CUDA alone",
    ),
    **dict.fromkeys(
        ("bits-flashinfer", "verify-decoder-flashinfer", "bits-flashinfer-fixed",
         "bits-flashinfer-whole", "order-flashinfer"),
        "FlashInfer computes on CUDA alone",
    ),
}  # fmt: skip
"""Steps that no CPU can run, and why."""

CONTROLS = {
    "invariance": "stale-slot",
    "accuracy": "wrong-input",
    "cache": "unwritten-slot",
}
"""One defect for each relation, without which its checks are void; other relations take long."""
HEADS = {"query": 4, "kv": 2, "dim": 16}
ORDER = {"split": 16, "tile": 16, "block_m": 16}
AUDITED = {"split": 128, "tile": 32}  # what the audit's own tests compile, once for all
CONFIG = {
    "vocab_size": 256, "hidden_size": 16, "intermediate_size": 16, "layers": 1, "heads": 4,
    "kv_heads": 2, "head_dim": 16, "max_positions": 64,
}  # fmt: skip


def small(step: Step, folder: Path) -> list[str]:
    """The arguments of ``kvparity`` for a step on a CPU. Contracts are written to ``folder``."""
    verb, *words = [word.replace(RUN, str(folder)) for word in step.command[3:]]
    words = ["cpu" if word == "cuda" else word for word in words]
    if verb in ("verify", "audit"):
        words[0] = contract(words[0], folder, audited=verb == "audit")
    if verb == "verify":
        words += ["--jobs", "1"]
    elif verb == "audit":
        words += ["--arch", "sm_90"]
    elif verb == "order":
        sizes = {"--keys": "5", "--heads": "2,1", "--dim": "16", "--draws": "1"}
        if "sdpa" in words[0]:
            sizes |= {"--keys": "3", "--heads": "2,2", "--dim": "4"}
        words += [word for pair in sizes.items() for word in pair]
    elif verb == "tiles":
        words += ["--dtype", "float32", "--choice", "decode_block_m=16"]
    return [verb, *words]


def contract(
    name: str, folder: Path, *, planted: Collection[str] = tuple(CONTROLS), audited: bool = False
) -> str:
    """A copy of a contract: one workload, one format, one path for each relation, a tiny subject.

    ``planted``: the relations that keep a control.
    """
    file = ROOT / name if "/" in name else find(name)
    found = YAML(typ="safe").load(file.read_text())
    _shrink_subject(found["subject"], file.parent, audited)
    numerics = found["numerics"]
    numerics.pop("temperatures", None)
    for key in ("execution", "kv_cache"):
        if isinstance(numerics.get(key), list):
            numerics[key] = numerics[key][-1 if audited else 0]
    found["workloads"] = [{"name": "few", "prompt_tokens": [15], "generate": 3}]
    checks = {c["relation"]: c for c in reversed(found["checks"]) if c["relation"] in CONTROLS}
    for check in checks.values():
        check.pop("workloads", None)
        if "paths" in check:
            known = ("decode", "generate", "exported")
            check["paths"] = [path for path in check["paths"] if path in known][:1]
        if numerics["execution"] in check.get("limits", ()):
            check["limits"] = {numerics["execution"]: check["limits"][numerics["execution"]]}
    found["checks"] = list(checks.values())
    found["controls"] = [CONTROLS[relation] for relation in checks if relation in planted]
    copy = folder / f"{file.stem}.yaml"
    YAML().dump(found, copy)
    return str(copy)


def _shrink_subject(subject: dict, base: Path, audited: bool) -> None:
    own = subject["kind"] == "decoder" and subject.get("attention", "fixed-order") == "fixed-order"
    if subject["kind"] == "attention":
        subject["heads"] = HEADS
        for side in ("prefill", "decode"):
            if ".py:" in subject[side]:
                subject[side] = str(base / subject[side])
    if subject.pop("preset", None):
        subject["config"] = CONFIG
    if own or "order" in subject or audited:
        subject["order"] = AUDITED if audited else ORDER
    if own:
        subject["cpu_ops"] = "twin"
