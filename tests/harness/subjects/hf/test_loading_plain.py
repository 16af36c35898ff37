"""What transformers is asked for when a folder or a configuration is loaded, and what is noted."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from plain_host import CONFIG
from transformers import GenerationConfig

from kvparity.subjects.base import UnsupportedError
from kvparity.subjects.hf import loading
from kvparity.subjects.hf import subject as subjects
from kvparity_contracts.subjects import Transformers

CPU = torch.device("cpu")
HOW: dict[str, Any] = {"dtype": torch.bfloat16, "attention": "sdpa", "device": CPU}


class Model(torch.nn.Module):
    """A model with two weights and settings of its own."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)
        self.generation_config = GenerationConfig(**settings)
        self.config = CONFIG

    def forward(self, input_ids: Any, past_key_values: Any = None) -> None: ...


class Library:
    """In the place of transformers: keeps what it was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: dict[str, Any] = {}
        self.missing: dict[str, Any] = {"missing_keys": [], "mismatched_keys": []}
        self.model: Any = Model()
        self.fails: Exception | None = None
        self.fitted: list[Any] = []
        self.bars = True
        autos = SimpleNamespace(from_pretrained=self.weights, from_config=self.random)
        configs = SimpleNamespace(from_pretrained=self.config, for_model=self.config)
        monkeypatch.setattr(loading, "AutoModelForCausalLM", autos)
        monkeypatch.setattr(loading, "AutoConfig", configs)
        monkeypatch.setattr(loading.sizes, "fits", lambda *args, **how: self.fitted.append(how))
        monkeypatch.setattr(loading.logging, "disable_progress_bar", self.quiet)

    def quiet(self) -> None:
        self.bars = False

    def config(self, what: Any, **more: Any) -> str:
        self.asked["config"] = (what, more)
        return "a configuration"

    def weights(self, folder: Path, **more: Any) -> Any:
        self.asked["weights"] = more
        if self.fails is not None:
            raise self.fails
        return self.model, self.missing

    def random(self, config: Any, **more: Any) -> Any:
        self.asked["random"] = (config, more, torch.rand(1).item())
        if self.fails is not None:
            raise self.fails
        return self.model


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    return Library(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.safetensors").write_text("")
    return tmp_path


def ready(loaded: loading.Loaded) -> bool:
    model = loaded.model
    fixed = not any(p.requires_grad for p in model.parameters())
    return fixed and not model.training and not model.generation_config.to_diff_dict().get("top_k")


def test_nothing_but_the_folder_is_asked_for(library: Library, folder: Path) -> None:
    library.model = Model(top_k=3)
    loaded = loading.from_folder(folder, **HOW)
    local = {"local_files_only": True, "trust_remote_code": False}
    assert library.asked["config"] == (folder, local)
    assert library.asked["weights"] == local | {
        "use_safetensors": True,
        "dtype": torch.bfloat16,
        "attn_implementation": "sdpa",
        "output_loading_info": True,
    }
    assert library.fitted == [
        {
            "dtype": torch.bfloat16,
            "device": CPU,
            "where": f"{folder / 'config.json'}",
            "others": {CPU},
        }
    ]
    assert library.bars is False
    assert ready(loaded)
    (note,) = loaded.notes
    assert note.startswith("generation_config is overridden (top_k 3)")


def test_weights_are_drawn_from_the_seed_alone(library: Library) -> None:
    drawn = []
    for seed in (1, 1, 2):
        before = torch.get_rng_state()
        assert ready(loading.from_config({"model_type": "llama"}, seed=seed, **HOW))
        assert torch.get_rng_state().equal(before)
        drawn.append(library.asked["random"][2])
        torch.rand(3)
    assert drawn[0] == drawn[1] != drawn[2]
    asked = {"dtype": torch.bfloat16, "attn_implementation": "sdpa"}
    assert library.asked["random"][:2] == ("a configuration", asked)
    assert library.asked["config"] == ("llama", {})
    assert library.fitted[0]["where"] == "config"


@pytest.mark.parametrize("where", ["config", "folder"])
def test_an_error_of_the_library_is_one_sentence(
    library: Library, folder: Path, where: str
) -> None:
    library.fails = ValueError("no such\nattention")
    if where == "folder":
        words = "and its safetensors cannot be loaded: ValueError: no such attention"
        with pytest.raises(UnsupportedError, match=words):
            loading.from_folder(folder, **HOW)
        library.fails = torch.OutOfMemoryError("none")
        with pytest.raises(torch.OutOfMemoryError):
            loading.from_folder(folder, **HOW)
        return
    for library.fails in (ValueError("no such\nattention"), ImportError("no such\nattention")):
        words = r"llama model cannot be built with attention sdpa: \w+Error: no such attention"
        with pytest.raises(UnsupportedError, match=words):
            loading.from_config({"model_type": "llama"}, seed=1, **HOW)
    library.fails = KeyError("a defect")
    with pytest.raises(KeyError):
        loading.from_config({"model_type": "llama"}, seed=1, **HOW)


@pytest.mark.parametrize("what", ["missing_keys", "mismatched_keys"])
def test_every_weight_comes_from_the_files(library: Library, folder: Path, what: str) -> None:
    library.missing[what] = {"d", "b", "a", "c"}
    words = rf"4 weights do not come from the files \({what}: a, b, c\)"
    with pytest.raises(UnsupportedError, match=words):
        loading.from_folder(folder, **HOW)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, None),
        ({"bos_token_id": 1, "pad_token_id": 2, "use_cache": False}, None),
        ({"do_sample": True, "top_k": 7}, "do_sample true, top_k 7"),
        ({"eos_token_id": [2, 3], "pad_token_id": 2}, "eos_token_id [2, 3]"),
        ({"renormalize_logits": True, "suppress_tokens": None}, "renormalize_logits true"),
        ({"_of_its_own": 5}, None),
        ({"stop_at": 0}, "stop_at 0"),
        ({"flag": False}, None),
    ],
)
def test_settings_that_change_what_is_drawn_are_noted(
    settings: dict[str, Any], told: str | None
) -> None:
    own = SimpleNamespace(to_diff_dict=lambda: settings | {"transformers_version": "1"})
    found = list(loading._overridden(SimpleNamespace(generation_config=own)))
    wanted = [] if told is None else [f"generation_config is overridden ({told})"]
    assert [each.partition(":")[0] for each in found] == wanted


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"config.json": None}, "config.json is missing; a checkpoint needs it"),
        ({"config.json": {"model_type": "lama"}}, "model_type 'lama' is not known; expected a mod"),
        ({"config.json": {}}, "model_type None is not known; expected a model class"),
        ({"config.json": {"auto_map": {}}}, "model_type None needs the code in its folder"),
        ({"adapter_config.json": {}}, "holds an adapter of another model"),
        ({"config.json": {"model_type": "llama", "num_layers": 5000}}, "num_layers is 5000; exp"),
        ({"config.json": {"model_type": "llama", "custom_generate": "x"}}, "nothing is fetched he"),
        ({"model.safetensors": None}, r"model\.safetensors is missing$"),
        ({"model.safetensors": None, "b.bin": {}, "a.bin": {}}, "missing; a.bin is a pickle and"),
        ({"model.safetensors.index.json": {"weight_map": {"w": "a.st"}}}, "a.st is missing$"),
        ({"model.safetensors.index.json": {"weight_map": {"w": ""}}}, "weight_map.w is ''; expec"),
        ({"model.safetensors.index.json": {"weight_map": {"w": "a/b"}}}, "w is 'a/b'; expected"),
        ({"model.safetensors.index.json": {"weight_map": []}}, "weight_map is an empty list; exp"),
        ({"model.safetensors.index.json": {"weight_map": {"w": 3}}}, "weight_map.w is 3; expect"),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_refused_before_it_is_loaded(
    library: Library, folder: Path, files: dict[str, Any], words: str
) -> None:
    for name, content in files.items():
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(json.dumps(content))
    with pytest.raises(UnsupportedError, match=words):
        loading.from_folder(folder, **HOW)
    assert library.asked == {}


def test_the_files_of_an_index_are_all_there_or_the_single_one(folder: Path) -> None:
    assert loading._files(folder / "model.safetensors.index.json") == ["model.safetensors"]
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "b", "v": "a", "u": "b"}}))
    assert loading._files(index) == ["a", "b"]
    with pytest.raises(UnsupportedError, match="nowhere is not a folder; expected a local"):
        loading._check_folder(folder / "nowhere")


def test_code_of_a_known_type_is_not_followed_and_noted(library: Library, folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llama", "auto_map": {"A": "b.C"}}')
    assert loading.from_folder(folder, **HOW).notes == (
        "auto_map is not followed: Model is transformers' own",
    )


# What a contract asks for


@pytest.mark.parametrize("source", ["config", "checkpoint"])
def test_a_contract_is_built_as_it_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str
) -> None:
    done: list[Any] = []

    def loaded(what: Any, **how: Any) -> loading.Loaded:
        done.append((what, how))
        return loading.Loaded(Model(), ("a note",))

    monkeypatch.setattr(subjects.offline, "ensure", lambda: done.append("offline"))
    monkeypatch.setattr(subjects.fixed, "register", lambda: done.append("registered"))
    monkeypatch.setattr(loading, "from_config", loaded)
    monkeypatch.setattr(loading, "from_folder", loaded)
    monkeypatch.setattr(subjects, "attention_of", lambda model: "flex_attention")
    monkeypatch.setattr(subjects.caches, "require_keys", lambda model: done.append("keys"))
    monkeypatch.setattr(subjects.flex, "tried", lambda subject: done.append("tried"))
    given: dict[str, Any] = {"config": {"model_type": "llama"}}
    if source == "checkpoint":
        given = {"checkpoint": "model"}
    how: dict[str, Any] = {"execution": "float16", "device": CPU, "seed": 5, "base": tmp_path}

    def build(attention: str, kv_cache: str = "float16") -> Any:
        contract = Transformers(kind="transformers", attention=attention, cache="static", **given)
        return subjects.build(contract, kv_cache=kv_cache, **how)

    made = build("flex_attention")
    asked = {"dtype": torch.float16, "attention": "flex_attention", "device": CPU}
    asked |= {"device_map": None}
    wanted = (tmp_path / "model", asked)
    if source == "config":
        wanted = ({"model_type": "llama"}, asked | {"seed": 5})
    assert done == ["offline", "registered", wanted, "keys", "tried"]
    assert (made.attention, made.cache_kind, made.notes) == (
        "flex_attention",
        "static",
        ("a note",),
    )
    assert (made.invariant, made.device) == (False, CPU)
    with pytest.raises(UnsupportedError, match="attention sdpa was asked for, the model took flex"):
        build("sdpa")
    done.clear()
    with pytest.raises(UnsupportedError, match="kv_cache float32 with execution float16"):
        build("flex_attention", "float32")
    assert done == []
