"""Right contracts as dictionaries, and the same ones with one key changed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from editor import underlined

from kvparity_contracts import ContractError, lint, load

Doc = dict[str, Any]

CONFIG = {
    "vocab_size": 256, "hidden_size": 8, "intermediate_size": 8, "layers": 1, "heads": 8,
    "kv_heads": 2, "head_dim": 16, "max_positions": 300,
}  # fmt: skip
WORKLOAD = {"name": "w", "prompt_tokens": [3, 62], "generate": 8}
BITS = {"name": "bits", "relation": "invariance", "paths": ["decode", "chunked(4)"]}
CLOSE = {"name": "close", "relation": "accuracy", "limits": {"max_abs_dlogp": 0.1}}
NEAR = {"name": "near", "relation": "accuracy", "limits": {"max_abs": 0.1}}
PAIR_SUBJECT = {
    "kind": "attention", "prefill": "m:p", "decode": "m:d", "order": {"split": 64, "tile": 32},
    "heads": {"query": 8, "kv": 2, "dim": 16},
}  # fmt: skip


def _whole(subject: Doc, *checks: Doc, **numerics: Any) -> Doc:
    return {
        "version": 1, "name": "c", "subject": subject,
        "numerics": {"execution": ["float32"]} | numerics,
        "workloads": [WORKLOAD], "checks": list(checks), "controls": ["stale-slot"],
    }  # fmt: skip


ORDER = {"split": 64, "tile": 32}
BASES: dict[str, Doc] = {
    "decoder": _whole({"kind": "decoder", "config": CONFIG, "order": ORDER}, BITS, CLOSE),
    "pair": _whole(PAIR_SUBJECT, BITS, NEAR) | {"controls": ["split-by-batch"]},
    "model": _whole({"kind": "transformers", "config": {"model_type": "qwen3"},
                     "attention": "sdpa"}, BITS)
    | {"workloads": [WORKLOAD | {"prompt_tokens": [3, 62], "generate": 9}]},
    "checkpoint": _whole({"kind": "transformers", "checkpoint": "x", "attention": "sdpa",
                          "cache": "static"}, BITS)
    | {"workloads": [WORKLOAD | {"generate": 9}]},
}  # fmt: skip


def changed(base: str, changes: Doc) -> Doc:
    """A base whose values at dotted keys are others; ``+`` adds to a list, None takes away."""
    whole = copy.deepcopy(BASES[base])
    for dotted, value in changes.items():
        *folders, last = dotted.split(".")
        at: Any = whole
        for key in folders:
            at = at[int(key) if isinstance(at, list) else key]
        if last == "+":
            at.append(value)
        elif value is None:
            del at[last]
        else:
            at[int(last) if isinstance(at, list) else last] = value
    return whole


def said(whole: Doc, folder: Path, controls: bool = False) -> list[str]:
    """All that the loader refuses, or that the linter warns of, as ``error|warning key: words``.

    What the linter says of controls is left out unless asked for.
    """
    file = folder / "c.yaml"
    file.write_text(json.dumps(whole))
    try:
        loaded = load(file)
    except ContractError as error:
        return [f"error {each.key}: {each.message}, {each.expected}" for each in error.problems]
    assert underlined(whole) == []
    found = [f"warning {each.key}: {each.message}" for each in lint(loaded)]
    if controls:
        return found
    own = ("warning controls", "warning checks[")
    return [each for each in found if not (each.startswith(own) and "control" in each)]
