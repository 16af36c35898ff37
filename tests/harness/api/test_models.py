"""A transformers model in hand: generate() against one forward pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gaps import tiny
from torch import nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM

import kvparity
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
    model.model.norm = type("Norm", (nn.Identity,), {"__module__": "mine"})()
    return model


@pytest.mark.parametrize(
    ("change", "words"),
    [
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
    ("prompts", "words"),
    [
        ([], "expected a list of texts or of token ids"),
        ("hello", "expected a list of texts or of token ids"),
        (["hello", [1]], "found texts and token ids"),
        (["hello"], "tokenizer: found None"),
        ([[64]], "64"),
    ],
)
def test_prompts_that_mean_nothing(
    prompts: list[str], words: str, model: LlamaForCausalLM, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, UnsupportedError), match=words):
        kvparity.check_model(model, None, prompts, run_dir=tmp_path / "run", jobs=1)
    assert not list(tmp_path.glob("run*"))
