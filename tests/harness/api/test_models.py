"""A transformers model in hand: generate() against one forward pass."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from gaps import tiny
from torch import nn
from transformers import AttentionInterface, AutoModelForCausalLM, LlamaForCausalLM
from transformers.integrations import sdpa_attention
from transformers.models.llama import modeling_llama

import kvparity
from kvparity.api.kept import lost
from kvparity.api.patched import patched
from kvparity.cli.main import main
from kvparity.core.errors import RunFolderError, UnsupportedError

PROMPTS = [[3, 9, 17, 2, 40], [5, 8]]


@pytest.fixture
def model(tmp_path: Path) -> LlamaForCausalLM:
    folder = tiny.checkpoint(tmp_path / "tiny")
    found: LlamaForCausalLM = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    return found.eval()


def test_the_model_in_hand_is_verified_and_can_be_again(
    model: LlamaForCausalLM, tmp_path: Path
) -> None:
    with torch.no_grad():
        model.lm_head.weight[0] += 1.0  # what lies on disk is another
    run = tmp_path / "run"
    found = kvparity.check_model(
        model, None, PROMPTS, generate=3, run_dir=run, controls=["stale-slot"], jobs=1
    )
    assert found.verdict in ("holds", "differs")
    assert found.cases[0].tokens == 6
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "run-model")
    assert torch.equal(saved.lm_head.weight, model.lm_head.weight)
    assert main(["replay", str(run), found.cases[0].id]) == (0 if found.holds else 1)
    with pytest.raises(RunFolderError, match="give another run_dir"):
        kvparity.check_model(model, None, PROMPTS, run_dir=run)
    assert (tmp_path / "run.json").exists()


def _train(model: LlamaForCausalLM) -> nn.Module:
    return model.train()


def _hooked(model: LlamaForCausalLM) -> nn.Module:
    model.model.layers[1].register_forward_hook(lambda *given: None)
    return model


def _own_forward(model: LlamaForCausalLM) -> nn.Module:
    model.model.norm.forward = lambda x: x
    return model


def _mixed(model: LlamaForCausalLM) -> nn.Module:
    model.model.norm.float()
    return model


def _subclass(model: LlamaForCausalLM) -> nn.Module:
    model.__class__ = type("Mine", (LlamaForCausalLM,), {"__module__": "mine"})
    return model


def _layer(model: LlamaForCausalLM) -> nn.Module:
    model.model.norm = type("Norm", (nn.Identity,), {"__module__": "mine"})().eval()
    return model


def _set(path: str, value: object) -> Callable[[LlamaForCausalLM], nn.Module]:
    def change(model: LlamaForCausalLM) -> nn.Module:
        *where, last = path.split(".")
        setattr(model.get_submodule(".".join(where)), last, value)
        return model

    return change


def _compiled(model: LlamaForCausalLM) -> nn.Module:
    model.compile(backend="eager")
    return model


def _buffer(model: LlamaForCausalLM) -> nn.Module:
    model.model.rotary_emb.inv_freq *= 3
    return model


def _another_rule(model: LlamaForCausalLM) -> nn.Module:
    attention = model.model.layers[1].self_attn
    attention.config = copy.deepcopy(attention.config)
    attention.config._attn_implementation = "eager"
    return model


def _head_with_bias(model: LlamaForCausalLM) -> nn.Module:
    model.lm_head.bias = nn.Parameter(torch.ones(64, dtype=torch.bfloat16))
    return model


def _one_more_layer(model: LlamaForCausalLM) -> nn.Module:
    model.model.layers.append(copy.deepcopy(model.model.layers[0]))
    return model


LAYER = "model.layers.1"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("model.norm.training", True), r"expected model\.eval\(\)"),
        (_set(f"{LAYER}.self_attn.scaling", 0.01), "self_attn.scaling is 0.01, by its class"),
        (
            _set(f"{LAYER}.mlp.act_fn", nn.GELU().eval()),
            "mlp.act_fn is a GELU, by its class and config",
        ),
        (_set("lm_head.extra_repr", lambda: ""), "module lm_head has its own extra_repr"),
        (_buffer, "inv_freq is not what is loaded"),
        (
            lambda model: model.float().bfloat16(),
            "inv_freq is torch.bfloat16 .*loaded torch.float32",
        ),
        (_another_rule, "_attn_implementation is 'eager' in module model.layers.1.self_attn"),
        (_head_with_bias, "it has the tensor lm_head.bias"),
        (_one_more_layer, "it has the module model.layers.2"),
        (_compiled, "has its own _compiled_call_impl"),
        (lambda model: model.to("meta"), "it has no weights"),
        (_train, r"it is in train mode; expected model\.eval\(\)"),
        (_hooked, "module model.layers.1 has a forward hook"),
        (_own_forward, "module model.norm has a forward of its own"),
        (_mixed, "dtypes torch.bfloat16, torch.float32; expected one"),
        (_subclass, "Mine is a class of mine"),
        (_layer, "module model.norm is a Norm"),
        (lambda model: model.model.norm, "found LlamaRMSNorm, expected a causal language model"),
    ],
)
def test_a_model_that_its_checkpoint_would_not_be(
    change: Callable[[LlamaForCausalLM], nn.Module],
    words: str,
    model: LlamaForCausalLM,
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match=words):
        kvparity.check_model(change(model), None, PROMPTS, run_dir=tmp_path / "run")
    assert not list(tmp_path.glob("run*"))


@pytest.mark.parametrize(
    ("where", "name", "words"),
    [
        (
            modeling_llama,
            "apply_rotary_pos_emb",
            "modeling_llama.apply_rotary_pos_emb was replaced",
        ),
        (modeling_llama.LlamaMLP, "forward", "LlamaMLP.forward was replaced in this process"),
    ],
)
def test_code_that_other_processes_do_not_have(
    where: object,
    name: str,
    words: str,
    model: LlamaForCausalLM,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(where, name, lambda *given, **more: given)
    with pytest.raises(ValueError, match=words):
        kvparity.check_model(model, None, PROMPTS, run_dir=tmp_path / "run")
    assert not list(tmp_path.glob("run*"))


REAL = torch.nn.functional.softmax
REGISTERED = AttentionInterface._global_mapping
GENUINE = REGISTERED["sdpa"]


def _stand_in(*given: object, **more: object) -> object:
    return REAL(*given, **more)  # type: ignore[arg-type] # as it was given


@pytest.mark.parametrize(
    ("where", "name", "value", "words"),
    [
        (nn.functional, "softmax", _stand_in, "torch.nn.functional.softmax was replaced"),
        (nn.functional, "softmax", wraps(REAL)(_stand_in), "torch.nn.functional.softmax"),
        (nn.functional, "softmax", partial(REAL), "torch.nn.functional.softmax was replaced"),
        (nn.functional, "scaled_dot_product_attention", torch.add, "scaled_dot_product_attention"),
        (torch, "matmul", torch.mul, "torch.matmul was replaced"),
        (torch.Tensor, "softmax", _stand_in, "torch.Tensor.softmax was replaced"),
        (nn.Linear, "forward", _stand_in, "Linear.forward was replaced"),
        (sdpa_attention, "repeat_kv", _stand_in, "sdpa_attention.repeat_kv was replaced"),
        (REGISTERED, "sdpa", _stand_in, "ALL_ATTENTION_FUNCTIONS.sdpa was replaced"),
        (REGISTERED, "sdpa", partial(GENUINE), "ALL_ATTENTION_FUNCTIONS.sdpa was replaced"),
        (REGISTERED, "sdpa", REGISTERED["flex_attention"], "ALL_ATTENTION_FUNCTIONS.sdpa"),
    ],
)
def test_patches_that_other_processes_do_not_have(
    where: object,
    name: str,
    value: object,
    words: str,
    model: LlamaForCausalLM,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not list(patched(model))
    if isinstance(where, dict):
        monkeypatch.setitem(where, name, value)
    else:
        monkeypatch.setattr(where, name, value)
    assert any(words in each for each in lost(model, model))


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ([], "expected a list of texts, or of lists of token ids"),
        ("hello", "expected a list of texts, or of lists of token ids"),
        (["hello", [1]], "found texts and token ids"),
        (["hello"], "tokenizer: found None"),
        ([3, 9], "expected a list of texts, or of lists"),
        (torch.tensor([[3]]), "expected a list of texts, or of lists"),
        ([[64]], "64"),
    ],
)
def test_prompts_that_mean_nothing(
    prompts: Any, words: str, model: LlamaForCausalLM, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, UnsupportedError), match=words):
        kvparity.check_model(model, None, prompts, run_dir=tmp_path / "run", jobs=1)
    assert not list(tmp_path.glob("run*"))
