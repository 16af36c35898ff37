"""Small subjects of both kinds with a bench set up, and codecs on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from codec_models import tiny_settings

from kvparity.labs.codec.capture import Reference
from kvparity.labs.codec.coding import Coding
from kvparity.labs.codec.lab import fixed_of
from kvparity.labs.codec.prepare import Bench, prepare
from kvparity.labs.codec.registry import find
from kvparity.labs.codec.runs import Runs
from kvparity.run.unit import Setting
from kvparity.subjects.decoder.subject import build as build_decoder
from kvparity.subjects.hf.subject import build as build_transformers
from kvparity_contracts.contract import Contract

HERE = Path(__file__).parent
CPU = torch.device("cpu")
DECODER: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 32,
    "layers": 3,
    "heads": 2,
    "kv_heads": 1,
    "head_dim": 16,
    "max_positions": 64,
    "sliding_window": 8,
    "layer_types": ["sliding", "full", "sliding"],
    "kv_shared_layers": 1,
}


def contract(subject: dict[str, Any], execution: str, **changes: Any) -> Contract:
    whole: dict[str, Any] = {
        "version": 1,
        "name": "codecs",
        "seed": 3,
        "subject": subject,
        "numerics": {"execution": execution},
        "workloads": [{"name": "short", "prompt_tokens": [3, 14], "generate": 6}],
        "checks": [
            {"name": "c", "relation": "invariance", "reference": "prefill", "paths": ["decode"]}
        ],
        "controls": ["position-off-by-one"],
    }
    return Contract.model_validate(whole | changes)


def transformers_setting(name: str, execution: str = "float32", **changes: Any) -> Setting:
    subject = {
        "kind": "transformers",
        "attention": "eager",
        "config": {"model_type": name, **tiny_settings(name)},
    }
    made = contract(subject, execution, **changes)
    return Setting(made, _build(build_transformers, made, execution, execution))


def decoder_setting(
    execution: str = "float32", kv_cache: str | None = None, **changes: Any
) -> Setting:
    subject = {"kind": "decoder", "config": DECODER, "order": {"split": 32, "tile": 16}} | changes
    # Interpreted attention is slow: one sequence, whose second step leaves the window.
    text = {"name": "short", "prompt_tokens": [7], "generate": 4}
    made = contract(subject, execution, workloads=[text])
    return Setting(made, _build(build_decoder, made, execution, kv_cache or execution))


def _build(build: Any, made: Contract, execution: str, kv_cache: str) -> Any:
    return build(
        made.subject,
        execution=execution,
        kv_cache=kv_cache,
        device=CPU,
        seed=made.seed,
        base=HERE,
    )


def bench(setting: Setting, dtype: torch.dtype | None = None, **how: Any) -> Bench:
    execution = getattr(torch, setting.contract.numerics.execution[0])
    return prepare(
        setting,
        "short",
        execution=execution,
        dtype=dtype,
        lengths=how.pop("lengths", None),
        progress=lambda what: None,
        **how,
    )


def runs(made: Bench) -> Runs:
    return Runs(made.subject, made.steps, made.tokens, made.temperature, made.reference)


def coding(made: Bench, name: str) -> Coding:
    """All layers coded by ``name``, calibrated."""
    pair = find(name, HERE)
    every = frozenset(range(len(made.reference.layers)))
    return Coding(pair, made.dtype, every, fixed_of(pair, made.reference))


def layers(reference: Reference) -> int:
    return len(reference.layers)
