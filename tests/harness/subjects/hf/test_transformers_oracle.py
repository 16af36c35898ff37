"""The float64 twin of a transformers model: of experts, too, and in words where there is none."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_transformers import tiny, tokens
from transformers_families import TYPES

from kvparity.plan.schedule import Layout, Member, Span
from kvparity.run import verify
from kvparity.subjects.base import OracleError
from kvparity.subjects.hf.oracle import twin
from kvparity.subjects.hf.subject import build
from kvparity_contracts.loader import load as read
from kvparity_contracts.subjects import Transformers

MIXTRAL = {
    "model_type": "mixtral",
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_local_experts": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
# Types whose own code does not compute in float64: of experts before transformers 5.
FLOAT32_ONLY = ("xglm", *(["deepseek_v3"] if transformers.__version__.startswith("4.") else []))


def load(config: dict[str, Any]) -> Any:
    return build(
        Transformers(kind="transformers", config=config, attention="eager"),
        execution="float32",
        kv_cache="float32",
        device=torch.device("cpu"),
        seed=3,
        base=Path(),
    )


@pytest.mark.parametrize("name", [n for n in TYPES if n not in (*FLOAT32_ONLY, "mamba")])
@pytest.mark.filterwarnings("ignore:.position_ids. have no functionality:FutureWarning")  # 4.57
def test_each_type_of_model_loads_and_is_close_to_its_float64(name: str) -> None:
    subject, ids = load(TYPES[name]), [3 + i % 100 for i in range(11)]
    session = subject.session([Member("m", 11)], Layout(cached=False))
    (rows,) = session.forward((Span(0, 0, 11, rows_from=0),), [ids])
    wanted = subject.oracle(Member("m", 11), ids, range(11))
    assert wanted.dtype == torch.float64
    assert wanted.shape == (11, subject.vocab)
    assert (rows - wanted).abs().max() < 1e-4 * rows.abs().max()
    moved = subject.oracle(Member("m", 11), [*ids[:5], 99, *ids[6:]], range(11))
    assert (rows - moved).abs().max() > 1e-2 * rows.abs().max()


@pytest.mark.parametrize("execution", ["bfloat16", "float16", "float32"])
def test_the_twin_computes_in_float64_whatever_the_model_computes_in(execution: str) -> None:
    """It is held against float32 with the same rounded weights: all that is left is its rounding.

    transformers computes norms and softmax in float32, so the two agree to about 1e-6; numbers
    that were computed in 16 bits, and only called float64, do not.
    """
    subject, ids = tiny("eager", execution=execution), tokens(9)
    single = copy.deepcopy(subject.model).float()
    with torch.inference_mode():
        wanted = single(input_ids=torch.tensor([ids]), use_cache=False).logits[0, 2:8].double()
    found = subject.oracle(Member("m", 9), ids, range(2, 8))
    assert found.dtype == torch.float64
    assert 0 < (found - wanted).abs().max() < 2e-5 * wanted.abs().max()
    # Float64 has more digits than float32 holds, and the model under verification keeps its own.
    assert bool((found != found.float()).any())
    assert subject.model.dtype == getattr(torch, execution)


def test_a_mixture_of_experts_is_held_against_its_eager_experts() -> None:
    subject, ids = load(MIXTRAL), tokens(9)
    session = subject.session([Member("m", 9)], Layout())
    (rows,) = session.forward((Span(0, 0, 9, rows_from=0),), [ids])
    wanted = subject.oracle(Member("m", 9), ids, range(9))
    assert wanted.dtype == torch.float64
    assert 0 < (rows - wanted).abs().max() < 1e-4 < rows.abs().max()
    # What is under verification keeps the experts that its user would have.
    if hasattr(subject.model, "get_experts_implementation"):
        assert subject.model.get_experts_implementation() != {"": "eager"}
        assert twin(subject.model).get_experts_implementation() == {"": "eager"}


@pytest.mark.parametrize(("limit", "verdict"), [(1e-3, "holds"), (30.0, "void")])
def test_a_mixture_of_experts_gets_a_verdict_about_accuracy(
    tmp_path: Path, limit: float, verdict: str
) -> None:
    """Void where the limit would let another prompt pass, and then with a limit that would not."""
    whole = {
        "version": 1, "name": "experts", "numerics": {"execution": "float32"},
        "subject": {"kind": "transformers", "attention": "sdpa", "config": MIXTRAL},
        "workloads": [{"name": "w", "prompt_tokens": [5], "generate": 3}],
        "checks": [{"name": "near", "relation": "accuracy", "limits": {"max_abs_dlogp": limit}}],
    }  # fmt: skip
    file = tmp_path / "experts.yaml"
    file.write_text(json.dumps(whole))
    report = verify.verify(
        read(file), device="cpu", folder=tmp_path / "run", jobs=1, resume=False, command="",
        progress=lambda *_: None,
    ).document()  # fmt: skip
    (check,) = report["checks"]
    assert (check["verdict"], report["verdict"]) == (verdict, verdict)
    assert {case["verdict"] for case in check["cases"]} == {"holds"}
    assert ("a limit of " in check["reason"]) == (verdict == "void")


@pytest.mark.parametrize("name", FLOAT32_ONLY)
def test_a_model_that_is_no_model_in_float64_says_so(name: str) -> None:
    subject, words = load(TYPES[name]), "ForCausalLM does not compute in float64.*Error: "
    with pytest.raises(OracleError, match=words):
        subject.oracle(Member("m", 9), [3] * 9, range(9))
