"""What the linter says that a subject cannot do is what the subject refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from server_stand_in import StandIn, serving

from kvparity.plan.paths import build
from kvparity.plan.workload import fill
from kvparity.subjects.registry import factory
from kvparity_contracts.abilities import cannot
from kvparity_contracts.contract import Contract
from kvparity_contracts.draws import means
from kvparity_contracts.paths import EXAMPLES, KINDS, SHORTHANDS, PathName
from kvparity_contracts.workloads import Workload

PAIRS = Path(__file__).parents[1] / "semantic_pairs.py"
SHAPE = {
    "vocab_size": 256, "hidden_size": 16, "intermediate_size": 16, "layers": 1, "heads": 1,
    "kv_heads": 1, "head_dim": 16, "max_positions": 64,
}  # fmt: skip
MODEL = {
    "model_type": "qwen3", "vocab_size": 256, "hidden_size": 16, "intermediate_size": 16,
    "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 16,
    "max_position_embeddings": 64,
}  # fmt: skip
SUBJECTS: dict[str, dict[str, Any]] = {
    "pair": {
        "kind": "attention",
        "prefill": "kvparity_kernels.attention:prefill",
        "decode": "kvparity_kernels.attention:decode",
        "heads": {"query": 2, "kv": 1, "dim": 16},
    },
    "pair over pages": {
        "kind": "attention",
        "prefill": "kvparity_kernels.attention:prefill",
        "decode": "kvparity_kernels.attention:decode",
        "heads": {"query": 2, "kv": 1, "dim": 16},
        "page": 16,
    },
    "pair that looks ahead": {
        "kind": "attention",
        "prefill": f"{PAIRS}:prefill",
        "decode": f"{PAIRS}:decode",
        "heads": {"query": 2, "kv": 1, "dim": 16},
        "causal": False,
    },
    "pair whose cache is laid out": {
        "kind": "attention",
        "prefill": f"{PAIRS}:prefill",
        "decode": f"{PAIRS}:decode",
        "heads": {"query": 2, "kv": 1, "dim": 16},
        "layout": "interleaved",
    },
    "pair beside an encoder": {
        "kind": "attention",
        "prefill": f"{PAIRS}:prefill",
        "decode": f"{PAIRS}:decode",
        "heads": {"query": 2, "kv": 1, "dim": 16},
        "causal": False,
        "cross": [3, 20],
    },
    "decoder": {"kind": "decoder", "config": SHAPE},
    "server": {"kind": "server", "api": "vllm", "vocabulary": 256, "url": "http://127.0.0.1:1"},
    "decoder on sdpa": {"kind": "decoder", "config": SHAPE, "attention": "sdpa"},
    "decoder on torch": {"kind": "decoder", "config": SHAPE, "operations": "torch"},
    "eager": {"kind": "transformers", "config": MODEL, "attention": "eager"},
    "static": {"kind": "transformers", "config": MODEL, "attention": "sdpa", "cache": "static"},
    "flex": {"kind": "transformers", "config": MODEL, "attention": "flex_attention"},
    "invariant": {
        "kind": "transformers", "config": MODEL, "attention": "eager", "cache": "static",
        "invariant": True,
    },
}  # fmt: skip
LIMITS = {"attention": {"max_abs": 1.0}}


def document(kind: str, relation: str, path: str, **more: Any) -> dict[str, Any]:
    subject = SUBJECTS[kind]
    check: dict[str, Any] = {"name": "c", "relation": relation, "paths": [path]} | more
    if relation == "accuracy":
        check["limits"] = LIMITS.get(subject["kind"], {"max_abs_dlogp": 1.0})
    return {
        "version": 1,
        "name": "able",
        "subject": subject,
        "numerics": {"execution": "float32"},
        "workloads": [{"name": "w", "prompt_tokens": [18, 30], "generate": 3}],
        "checks": [check],
    }


_OF_TRANSFORMERS_4 = {
    ("reset", "eager"),
    ("exported", "static"),
    ("exported", "invariant"),
    ("compiled", "static"),
}
"""What transformers 4 alone cannot do: its growing cache keeps its length, its static one is no
program's."""


MIXED = "0:0-17 1:0-29 / 0:18* 1:30* / 0:19* 1:31*"
OWN = {"chunked": "chunked(7)", "steps": "steps(page 16 / 0:0-17 1:0-8 / 1:9-31 / 0:18* / 0:19*)"}


@pytest.mark.parametrize("kind", [name for name in SUBJECTS if name != "flex"])  # slow to load
def test_what_a_subject_refuses_is_a_fault_of_the_contract(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = "permuted" if kind == "pair that looks ahead" else "decode"
    with serving(StandIn()) as stand_in:
        monkeypatch.setitem(SUBJECTS["server"], "url", stand_in.url)
        contract = Contract.model_validate(document(kind, "invariance", known))
        subject = factory(contract.subject.kind)(
            contract.subject, execution="float32", kv_cache="float32", device=torch.device("cpu"),
            seed=0, base=Path(),
        )  # fmt: skip
    prompts = fill(Workload.model_validate(document(kind, "", "")["workloads"][0]), seed=0, vocab=0)
    for name in KINDS:
        if name in SHORTHANDS:
            continue
        # A chunk that holds a whole sequence is prefill.
        path = PathName.parse((EXAMPLES | OWN).get(name, name))
        plan = build(path, prompts, seed=0, given=means(contract))
        refused = subject.unsupported(plan) is not None
        told = cannot(contract.subject, path) is not None
        if (path.kind, kind) in _OF_TRANSFORMERS_4 and transformers.__version__ < "5":
            assert (refused, told) == (True, False), f"{kind}: {path}"  # a contract runs on both
            continue
        assert told == refused, f"{kind}: {path}"


@pytest.mark.parametrize(
    ("kind", "relation", "path", "more", "words"),
    [
        ("pair", "invariance", "paged(16)", {}, "not declared to take pages"),
        ("pair", "invariance", "padded-left", {}, "padded batch is not part of the signature"),
        ("pair", "accuracy", "generate", {}, "generates no tokens"),
        ("decoder", "invariance", "decode", {"reference": "generate"}, "no generate.. loop"),
        ("eager", "trace", "padded-right", {}, "a trace check cannot look into a padded batch"),
        ("eager", "liveness", "padded-left", {}, "a liveness check cannot look into a padded"),
        ("flex", "trace", "decode", {}, "its mask is not a matrix"),
        ("server", "invariance", "random(3)", {}, "schedules the steps of its requests itself"),
        ("decoder", "liveness", "random(3)", {}, "a path whose last row reads keys"),
        ("decoder", "invariance", "decode", {"reference": "drawn(2)"}, "a path by name"),
        ("eager", "invariance", f"steps({MIXED})", {}, "takes one sequence a step"),
        ("pair", "invariance", f"steps(page 16 / {MIXED})", {}, "not declared to take pages"),
        ("decoder", "invariance", f"steps({MIXED} / 1:32-33)", {}, "steps that do not compute w"),
    ],
)
def test_it_is_said_at_the_path(
    kind: str, relation: str, path: str, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words.removeprefix("checks.0.*")):
        Contract.model_validate(document(kind, relation, path, **more))
