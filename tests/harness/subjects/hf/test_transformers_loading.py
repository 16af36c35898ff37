"""Loading: local folders and configs, and the errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_model import CONFIG, load

from kvparity.plan.schedule import Layout, Member, Span
from kvparity.subjects.base import UnsupportedError
from kvparity.subjects.hf import describing


def weights(subject: Any) -> torch.Tensor:
    return torch.cat([p.flatten() for p in subject.model.parameters()]).view(torch.int32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    load(config=CONFIG).model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_seed_gives_its_weights_and_leaves_the_global_state() -> None:
    before = torch.get_rng_state()
    one, same, other = load(config=CONFIG), load(config=CONFIG), load(config=CONFIG, seed=2)
    assert torch.get_rng_state().equal(before)
    assert weights(one).equal(weights(same))
    assert not weights(one).equal(weights(other))
    assert not one.model.training
    assert not any(p.requires_grad for p in one.model.parameters())


def test_a_folder_gives_the_same_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subject = load(folder.parent, checkpoint="model", seed=99)
    assert capsys.readouterr().err == ""  # no bars
    assert weights(subject).equal(weights(load(config=CONFIG)))
    assert (subject.vocab, subject.max_positions) == (96, 64)


def test_generation_settings_of_a_checkpoint_are_not_inherited(folder: Path) -> None:
    settings = {"repetition_penalty": 5.0, "do_sample": True, "top_k": 1, "eos_token_id": 4}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    subject, ids, rows = load(folder.parent, checkpoint="model"), [4, 4, 9], []

    def choose(position: int, row: torch.Tensor) -> int:
        rows.append(row.clone())
        return 4

    subject.generate(Member("m", 6, 3), ids, choose)
    session = subject.session([Member("m", 3)], Layout())
    (expected,) = session.forward((Span(0, 0, 3, rows_from=2),), [ids])
    assert len(rows) == 3
    # A penalty of 5 would move the rows of seen tokens by far more than a rounding.
    assert (rows[0] - expected[0]).abs().max() < 1e-5


def test_other_model_families_load() -> None:
    subject = load(
        config={
            "model_type": "gpt2",
            "vocab_size": 96,
            "n_positions": 32,
            "n_embd": 32,
            "n_layer": 1,
            "n_head": 2,
        }
    )
    assert subject.max_positions == 32
    session = subject.session([Member("m", 3)], Layout())
    (rows,) = session.forward((Span(0, 0, 3, rows_from=0),), [[1, 2, 3]])
    assert rows.shape == (3, 96)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "lama"}, "no model_type 'lama'; did you mean .*llama"),
        (
            {"vocab_siz": 9},
            "config.vocab_siz is not a setting of a llama model; did you mean vocab_size",
        ),
        ({"dtype": "float32"}, "config.dtype does not belong here; state it in numerics.execution"),
        ({"model_type": "t5"}, "config.intermediate_size is not a setting of a t5"),
    ],
)
def test_a_wrong_config_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load(config={**CONFIG, **change})


def test_an_attention_that_a_type_does_not_have_is_named() -> None:
    sizes = {"vocab_size": 64, "hidden_size": 32, "n_layer": 1, "n_head": 2}
    with pytest.raises(UnsupportedError, match="a bloom model cannot be built with attention sdpa"):
        load(config={"model_type": "bloom", **sizes}, attention="sdpa")


def test_a_model_without_a_causal_head_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="config: a vit model cannot be built: ValueError"):
        load(config={"model_type": "vit"})


def _no_folder(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _own_code(folder: Path) -> None:
    code = {"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "mine.Mine"}}
    (folder / "config.json").write_text(json.dumps(code))
    (folder / "mine.py").write_text("raise SystemExit('this must never run')")


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _missing_shard(folder: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _deeper(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))


def _truncated(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x00" * 100)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_no_folder, "model is not a folder; expected a local checkpoint"),
        (_no_config, r"config\.json is missing"),
        (_broken_config, r"config\.json cannot be read as JSON"),
        (_own_code, "'mine' needs the code in its folder, which is never run"),
        (_pickled, r"model\.safetensors is missing; pytorch_model\.bin is a pickle"),
        (_missing_shard, r"model-2\.safetensors is missing"),
        (_deeper, "weights do not come from the files .missing_keys: model.layers.1"),
        (_truncated, "model and its safetensors cannot be loaded"),
    ],
)
def test_a_damaged_folder_is_named(folder: Path, damage: Any, words: str) -> None:
    damage(folder)
    with pytest.raises(UnsupportedError, match=words):
        load(folder.parent, checkpoint="model")


def test_a_cache_dtype_of_its_own_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="kv_cache bfloat16 with execution float32"):
        load(config=CONFIG, kv_cache="bfloat16")


def test_flex_attention_that_does_not_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no compiler here\nand much more")

    monkeypatch.setattr("transformers.masking_utils.create_block_mask", broken)
    with pytest.raises(UnsupportedError, match=r"RuntimeError: no compiler here and much more$"):
        load(config=CONFIG, attention="flex_attention")


def test_the_fingerprint_names_the_weights_and_not_their_files(folder: Path) -> None:
    subject = load(folder.parent, checkpoint="model")
    (folder / "config.json").touch()
    subject.model.save_pretrained(folder.parent / "shards", max_shard_size="8KB")
    assert len(list((folder.parent / "shards").glob("*.safetensors"))) > 2
    again = load(folder.parent, checkpoint="shards")
    assert again.describe()["weights"] == subject.describe()["weights"]
    with torch.no_grad():
        again.model.lm_head.weight[5, 7] += 1e-3  # one element of one weight
    one, other = again.model.state_dict(), load(config=CONFIG).model.state_dict()
    assert describing.fingerprint(again.model) != subject.describe()["weights"]
    assert {name for name in one if not one[name].equal(other[name])} == {"lm_head.weight"}


def test_the_fingerprint_knows_which_weight_is_which() -> None:
    one, other = load(config=CONFIG), load(config=CONFIG)
    mlp = other.model.model.layers[0].mlp
    mlp.gate_proj, mlp.up_proj = mlp.up_proj, mlp.gate_proj
    assert describing.fingerprint(one.model) != describing.fingerprint(other.model)


def test_what_a_checkpoint_says_and_is_not_followed_is_noted(folder: Path) -> None:
    settings = {"eos_token_id": [4, 7], "top_k": 3, "repetition_penalty": 5.0, "pad_token_id": 1}
    settings |= {"output_attentions": False, "max_length": None}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    config = json.loads((folder / "config.json").read_text())
    there = {"auto_map": {"AutoModelForCausalLM": "mine.Mine"}}
    (folder / "config.json").write_text(json.dumps(config | there))
    overridden, code = load(folder.parent, checkpoint="model").describe()["notes"]
    told = "eos_token_id [4, 7], repetition_penalty 5.0, top_k 3"
    assert overridden.startswith(f"generation_config is overridden ({told}): ")
    assert "\n" not in overridden
    assert code == "auto_map is not followed: LlamaForCausalLM is transformers' own"
    assert load(config=CONFIG).describe()["notes"] == []
