"""A PEFT adapter on a model side: bit for bit what peft gives, and by its own formula."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gaps import tiny
from gaps.causes import chosen, usual
from peft import IA3Config, LoHaConfig, LoraConfig, PeftConfig, PeftModel
from peft import get_peft_model as adapted
from safetensors.torch import load_file, save_file

from kvparity.cli.main import main
from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.gaps.explain import Explainer
from kvparity.gaps.model_side import ModelSide
from kvparity.gaps.settings import Settings
from kvparity.gaps.weights import fingerprint, stored
from kvparity.relations.asked import Kernels
from kvparity.relations.parity.scored import scored as scored_sides
from kvparity.rollouts import Rollout, RolloutWriter, read_rollouts
from kvparity.rollouts.anomalies import Anomalies
from kvparity.rollouts.pairing import Matched, scored_by
from kvparity.rollouts.tokens import Tokens
from kvparity.run.identity import subject_files
from kvparity_contracts.files import load_whole

# peft asks for it under the name that transformers had.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
CPU = torch.device("cpu")
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
Values = list[torch.Tensor]
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def rollouts(base: Path) -> list[Rollout]:
    return list(read_rollouts(tiny.rollout(base, base / "rollout.jsonl")))


def made(base: Path, to: Path, config: PeftConfig) -> Path:
    """An adapter with weights that change something, as peft saves it."""
    draws = torch.Generator().manual_seed(4)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = adapted(tiny.plain(base), config, autocast_adapter_dtype=False)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn(weight.shape, generator=draws).to(weight)
    model.save_pretrained(to)
    return to


@torch.no_grad()
def plain(model: torch.nn.Module, rollouts: list[Rollout]) -> Values:
    found = []
    for each in rollouts:
        assert each.ids is not None
        assert each.prompt_ids is not None
        ids = torch.from_numpy(each.ids)
        logits = model(input_ids=ids[None], use_cache=False).logits[0]
        found.append(chosen(usual(logits), ids, each.prompt_ids.size))
    return found


def script(
    base: Path, folder: Path, rollouts: list[Rollout], *, merged: bool, float32: bool = True
) -> Values:
    model = PeftModel.from_pretrained(tiny.plain(base), folder, autocast_adapter_dtype=float32)
    return plain(model.merge_and_unload() if merged else model, rollouts)


def scored(base: Path, rollouts: list[Rollout], **settings: object) -> Values:
    side = ModelSide(base, Settings(**settings), CPU)  # type: ignore[arg-type]
    return [torch.from_numpy(values) for _, values in side.score(iter(rollouts))]


def written(path: Path, rollouts: list[Rollout], values: Values) -> None:
    with RolloutWriter(path) as writer:
        for each, own in zip(rollouts, values, strict=True):
            assert each.prompt_ids is not None
            assert each.response_ids is not None
            writer.write(each.prompt_ids.tolist(), each.response_ids.tolist(), own.tolist())


def bits(values: Values) -> list[int]:
    return [bit for each in values for bit in each.view(torch.int32).tolist()]


TARGETS = ["q_proj", "v_proj", "down_proj"]
KINDS: dict[str, Callable[[], PeftConfig]] = {
    "lora": lambda: LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS),
    "rslora": lambda: LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, use_rslora=True),
    "patterns": lambda: LoraConfig(
        r=4, target_modules=TARGETS, rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 24}
    ),
    "dora": lambda: LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, use_dora=True),
    "modules to save": lambda: LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["norm"]),
    "loha": lambda: LoHaConfig(r=4, alpha=8, target_modules=TARGETS),
    "ia3": lambda: IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=[]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_bits_are_those_of_peft(
    kind: str, base: Path, rollouts: list[Rollout], tmp_path: Path
) -> None:
    folder = made(base, tmp_path / "adapter", KINDS[kind]())
    without = bits(scored(base, rollouts))
    found = {}
    for merged in (False, True):
        for dtype in ("float32", "model") if kind == "lora" else ("float32",):
            ours = scored(base, rollouts, adapter=str(folder), merged=merged, adapter_dtype=dtype)
            theirs = script(base, folder, rollouts, merged=merged, float32=dtype == "float32")
            assert bits(ours) == bits(theirs)
            assert bits(ours) != without
            found[merged, dtype] = bits(ours)
    if kind == "lora":  # three of them round otherwise, so that none is another in disguise
        assert len(set(map(tuple, found.values()))) >= 3


def by_formula(base: Path, folder: Path) -> torch.nn.Module:
    """``W + scale B A``, with rank and alpha by name; in float32."""
    model = tiny.plain(base, torch.float32)
    config = json.loads((folder / CONFIG).read_text())
    tensors = load_file(folder / WEIGHTS)
    for name, weight in model.named_parameters():
        start = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{start}.lora_A.weight" in tensors:
            own = name.split(".")[-2]
            rank = config["rank_pattern"].get(own, config["r"])
            alpha = config["alpha_pattern"].get(own, config["lora_alpha"])
            scale = alpha / (rank**0.5 if config["use_rslora"] else rank)
            a, b = (tensors[f"{start}.lora_{it}.weight"].float() for it in "AB")
            weight.data += scale * b @ a
    return model


@pytest.mark.parametrize("kind", ["lora", "rslora", "patterns"])
def test_its_formula(kind: str, base: Path, rollouts: list[Rollout], tmp_path: Path) -> None:
    """Not by peft: what the adapter means."""
    folder = made(base, tmp_path / "adapter", KINDS[kind]())
    wanted = torch.cat(plain(by_formula(base, folder), rollouts))
    for merged in (False, True):
        found = scored(base, rollouts, dtype="float32", adapter=str(folder), merged=merged)
        assert torch.allclose(torch.cat(found), wanted, atol=1e-5)
    assert not torch.allclose(torch.cat(scored(base, rollouts, dtype="float32")), wanted, atol=0.1)


def _less(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"]


def _more(tensors: dict[str, torch.Tensor]) -> None:
    tensors["base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"] = torch.zeros(4, 32)


REFUSED: dict[str, tuple[dict[str, Any], Change | None, str]] = {
    "a key from elsewhere": ({"use_xora": True}, None, "use_xora is not known to the installed"),
    "another type": ({"peft_type": "MORA"}, None, "peft_type 'MORA' is not known"),
    "tokens of its own": (
        {"peft_type": "PREFIX_TUNING"}, None, "PREFIX_TUNING is not supported: it adapts no layers",
    ),
    "further adapters": ({"peft_type": "XLORA"}, None, "XLORA is not supported: it needs further"),
    "within a sequence": (
        {"alora_invocation_tokens": [3]}, None, "alora_invocation_tokens is not supported: it begi",
    ),
    "another library": ({"megatron_config": {"x": 1}}, None, "megatron_config is not supported"),
    "no such layer": ({"target_modules": ["w1"]}, None, "peft refuses it: .*Target modules"),
    "a rank that is none": ({"r": -1}, None, f"{CONFIG}: peft refuses it"),
    "a weight less": ({}, _less, rf"{WEIGHTS} lacks .*down_proj.lora_A"),
    "a weight more": ({}, _more, rf"{WEIGHTS} has, and the adapted model has not, .*up_proj"),
    "another rank": ({"r": 8}, None, rf"{WEIGHTS}: peft refuses it: RuntimeError"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_what_peft_would_leave_out_is_told(fault: str, base: Path, tmp_path: Path) -> None:
    keys, change, message = REFUSED[fault]
    folder = made(base, tmp_path / "adapter", KINDS["lora"]())
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"a_new_default": None} | keys))
    if change is not None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)
    with pytest.raises(UnsupportedError, match=message) as told:
        ModelSide(base, Settings(adapter=str(folder)), CPU)
    assert "\n" not in str(told.value)


def test_a_folder_that_is_none_and_a_library_that_is_missing(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnsupportedError, match=f"{CONFIG} is missing; expected PEFT's folder"):
        ModelSide(base, Settings(adapter=str(tmp_path)), CPU)
    folder = made(base, tmp_path / "adapter", KINDS["lora"]())
    with pytest.raises(UnsupportedError, match="merge it into its model first, or name the folder"):
        ModelSide(folder, Settings(), CPU)
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(UnsupportedError, match=f"{WEIGHTS} is missing"):
        ModelSide(base, Settings(adapter=str(folder)), CPU)
    for settings in ({"merged": True}, {"adapter_dtype": "model"}):
        with pytest.raises(ValueError, match=r"without an adapter.*: expected adapter, too"):
            Settings(**settings)  # type: ignore[arg-type]
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(SubjectError, match=r'not installed: pip install "kvparity\[peft\]"'):
        ModelSide(base, Settings(adapter=str(folder)), CPU)


def test_what_peft_says_of_a_pair_is_told(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The head is the embedding: merged, the adapter changes both."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        folder = made(base, tmp_path / "adapter", LoraConfig(r=2, target_modules=["lm_head"]))
    recording = str(base / "rollout.jsonl")
    assert main(["drift", recording, "--against", str(base), "--adapter", str(folder)]) == 1
    assert (
        "kvparity: peft: UserWarning: Model has `tie_word_embeddings=True`"
        in capsys.readouterr().err
    )
    with pytest.raises(UnsupportedError, match=r"is Linear of peft\..*; expected torch's Linear"):
        ModelSide(base, Settings(adapter=str(folder), head_dtype="float32"), CPU)


def test_an_adapter_in_a_contract(base: Path, rollouts: list[Rollout], tmp_path: Path) -> None:
    """Its path begins in the contract's folder; its files are part of what was verified."""
    (tmp_path / "model").symlink_to(base)
    folder = made(base, tmp_path / "lora", KINDS["lora"]())
    written(tmp_path / "rollout.jsonl", rollouts, script(base, folder, rollouts, merged=True))
    trainer = {"kind": "model", "checkpoint": "model", "adapter": "lora", "merged": True}
    subject = {"kind": "sides", "rollout": {"kind": "recorded", "file": "rollout.jsonl"}}
    document = {
        "version": 1,
        "name": "adapted",
        "subject": {**subject, "trainer": trainer},
        "checks": [{"name": "alike", "relation": "parity", "bits": "equal"}],
    }
    (tmp_path / "c.yaml").write_text(json.dumps(document, indent=1))
    loaded = load_whole(tmp_path / "c.yaml")
    kernels = Kernels(loaded.contract, tmp_path, lambda: pytest.fail("no subject"), folder=tmp_path)
    found = scored_sides(kernels)
    assert bool(found.found.tokens.equal.all())
    assert found.trainer.about == "bfloat16, sdpa, adapter lora, merged"
    assert found.trainer.fingerprint == "+".join(fingerprint(stored(it)) for it in (base, folder))
    assert {f"lora/{CONFIG}", f"lora/{WEIGHTS}"} <= subject_files(loaded).keys()


def test_a_merged_adapter_is_explained(
    base: Path, rollouts: list[Rollout], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The engine computed it beside the weights; the trainer merged it into bfloat16."""
    folder = str(made(base, tmp_path / "adapter", KINDS["lora"]()))
    path = tmp_path / "rollout.jsonl"
    written(path, rollouts, script(base, Path(folder), rollouts, merged=False))
    recorded = list(read_rollouts(path))
    merged = Settings(adapter=folder, merged=True)

    def score(settings: Settings) -> tuple[Tokens, None]:
        if replace(settings, adapter=folder, merged=True, adapter_dtype="float32") != merged:
            raise UnsupportedError("another setting than the adapter's")
        found = ModelSide(base, settings, CPU).score(iter(recorded))
        return Tokens.of(scored_by(found, Matched(), Anomalies())), None

    found = Explainer(merged, score, 600.0, (), lambda trial: None).explain()
    assert found.singles[0].factors == ("adapter beside the weights",)
    assert found.smallest == ("adapter beside the weights",)
    tried = {name for each in found.singles for name in each.factors}
    assert tried == {"adapter beside the weights", "adapter in the model's dtype", "no adapter"}
    command = ["drift", str(path), "--against", str(base), "--adapter", folder]
    assert main(command) == 0
    assert main([*command, "--merged", "--adapter-dtype", "model"]) == 1
    words = f"bfloat16, sdpa, adapter {folder}, merged, adapter_dtype model"
    assert words in capsys.readouterr().out
