"""Configurations and indexes that lie: one sentence, before anything is allocated or fetched."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_model import CONFIG, load

from kvparity.core import environment, offline
from kvparity.core.jsonfile import MOST_BYTES, read_object
from kvparity.subjects.base import UnsupportedError
from kvparity.subjects.hf import loading


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "model"
    load(config=CONFIG).model.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A checkpoint of its own for every test."""
    copied = tmp_path / "model"
    copied.mkdir()
    for file in whole.iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    return copied


def changed(folder: Path, **keys: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def refused(folder: Path) -> str:
    with pytest.raises(UnsupportedError) as caught:
        load(folder.parent, checkpoint="model")
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


LIES: list[tuple[dict[str, Any], str]] = [
    ({"num_hidden_layers": 10**9}, r"num_hidden_layers is 1000000000; expected at most 4096"),
    ({"num_hidden_layers": 1e9}, r"num_hidden_layers is 1000000000\.0; expected at most 4096"),
    ({"num_labels": 10**9}, r"num_labels is 1000000000; expected at most 65536"),
    (
        {"hidden_size": 2**24, "vocab_size": 2**24},
        r"[\d,]+\.\d GB as float32, but cpu has .* GB of m",
    ),
    ({"hidden_size": 2**45, "vocab_size": 2**45}, r"a llama model cannot be built: \w+Error: "),
    ({"rms_norm_eps": float("nan")}, r"rms_norm_eps is NaN; expected a number"),
    (
        {"rope_scaling": {"rope_type": "linear", "factor": float("nan")}},
        r"rope_scaling.factor is N",
    ),
    ({"hidden_size": "wide"}, r"a llama model.*(Error: .*'wide'|TypeError: )"),
    ({"num_attention_heads": 0}, r"llama model.*: ZeroDivisionError: "),
]


@pytest.mark.parametrize(("lie", "words"), LIES)
def test_a_lying_configuration_is_refused_before_it_is_built(
    folder: Path, monkeypatch: pytest.MonkeyPatch, lie: dict[str, Any], words: str
) -> None:
    changed(folder, **lie)

    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a model was allocated")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", never)
    assert re.search(words, refused(folder))


def test_the_same_lies_in_a_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedError, match="config: num_hidden_layers is 1000000000; expected"):
        load(config={**CONFIG, "num_hidden_layers": 10**9})
    with pytest.raises(UnsupportedError, match=r"config: a llama model of this shape has .* GB as"):
        load(config={**CONFIG, "vocab_size": 2**40})


def test_a_model_must_fit_into_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = load(config=CONFIG).describe()["parameters"]
    monkeypatch.setattr(loading.sizes, "memory", lambda device: 4 * parameters + 4096)
    load(config=CONFIG)
    monkeypatch.setattr(loading.sizes, "memory", lambda device: 4 * parameters - 1)
    with pytest.raises(UnsupportedError, match=f"has {parameters:,} parameters"):
        load(config=CONFIG)


INDEXES: list[tuple[Any, str]] = [
    ({}, "weight_map is nothing; expected an object of tensor names"),
    ({"weight_map": [1]}, "weight_map is a list; expected an object"),
    ({"weight_map": {}}, "weight_map is a mapping; expected an object"),
    ({"weight_map": {"a.b": 7}}, "weight_map.a.b is 7; expected the name of a file"),
    ({"weight_map": {"a": "../up.safetensors"}}, r"weight_map.a is '../up.safetensors'; expected"),
    ([], "holds list, not an object"),
]


@pytest.mark.parametrize(("index", "words"), INDEXES)
def test_an_index_of_the_wrong_shape_is_named(folder: Path, index: Any, words: str) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    message = refused(folder)
    assert "model.safetensors.index.json" in message
    assert words in message


def _deep(file: Path) -> None:
    file.write_text('{"a": ' + "[" * 200_000 + "]" * 200_000 + "}")


def _long(file: Path) -> None:
    with file.open("wb") as sparse:
        sparse.truncate(MOST_BYTES + 1)


def _pipe(file: Path) -> None:
    os.mkfifo(file)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (_deep, "nested too deeply"),
        (_long, "larger than 64 MiB"),
        (_pipe, "is not a regular file"),
        (lambda file: file.write_bytes(b'{"a": "\xff"}'), "cannot be read as JSON: 'utf-8'"),
        (lambda file: file.write_text("[]"), "holds list, not an object"),
    ],
)
def test_a_file_that_is_no_json_of_a_checkpoint(tmp_path: Path, write: Any, words: str) -> None:
    file = tmp_path / "config.json"
    write(file)
    with pytest.raises(UnsupportedError, match=words) as caught:
        read_object(file)
    assert str(file) in str(caught.value)


CODE: list[tuple[dict[str, Any], str]] = [
    ({"_attn_implementation": "kernels-community/x"}, "names 'kernels-community/x'"),
    ({"attn_implementation": {"": "paged|someone/x"}}, "names 'paged|someone/x'"),
    ({"text_config": {"_attn_implementation_internal": "a/b"}}, "text_config._attn_impl"),
    ({"experts_implementation": "sonicmoe"}, "names 'sonicmoe', which transformers would fetch"),
    ({"trust_remote_code": True}, "trust_remote_code is True, which is code or settings"),
    ({"custom_generate": "someone/loop"}, "custom_generate is 'someone/loop'"),
    ({"configuration_files": ["config.4.0.0.json"]}, "configuration_files is ["),
]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every attempt to reach another machine, none of which succeeds."""
    seen: list[str] = []

    def note(what: str) -> Any:
        def refuse(*args: Any, **kwargs: Any) -> Any:
            seen.append(what)
            raise OSError("no network in this test")

        return refuse

    monkeypatch.setattr(socket.socket, "connect", note("connect"))
    monkeypatch.setattr(socket, "getaddrinfo", note("getaddrinfo"))
    return seen


@pytest.mark.parametrize(("keys", "words"), CODE)
def test_code_from_elsewhere_is_refused_and_nothing_is_fetched(
    folder: Path, calls: list[str], keys: dict[str, Any], words: str
) -> None:
    changed(folder, **keys)
    message = refused(folder)
    assert words in message
    assert "nothing is fetched here" in message
    assert calls == []
    named = offline.fetches({"model_type": "llama", **keys})
    assert named is not None


def test_the_same_in_a_contract(calls: list[str]) -> None:
    with pytest.raises(UnsupportedError, match="config: experts_implementation names 'a/b'"):
        load(config={**CONFIG, "experts_implementation": "a/b"})
    assert calls == []


def test_an_adapter_would_bring_another_model(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/base"}')
    assert "adapter of another model" in refused(folder)


def test_a_known_class_never_follows_its_auto_map(folder: Path, calls: list[str]) -> None:
    there = {"AutoConfig": "someone/x--mine.C", "AutoModelForCausalLM": "mine.M"}
    changed(folder, auto_map=there)
    (folder / "mine.py").write_text("raise SystemExit('this must never run')")
    assert type(load(folder.parent, checkpoint="model").model).__name__ == "LlamaForCausalLM"
    assert calls == []


def test_what_was_imported_earlier_goes_offline_too(
    monkeypatch: pytest.MonkeyPatch, calls: list[str]
) -> None:
    import huggingface_hub

    late = SimpleNamespace(HF_DATASETS_OFFLINE=False, HF_HUB_OFFLINE=False)
    monkeypatch.setitem(sys.modules, "datasets.config", late)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Exception, match="no network in this test"):  # what is to be prevented
        huggingface_hub.utils.get_session().get("https://huggingface.co/someone/x")
    assert calls != []
    calls.clear()
    offline.ensure()
    assert os.environ["HF_HUB_OFFLINE"] == os.environ["HF_DATASETS_OFFLINE"] == "1"
    assert late.HF_DATASETS_OFFLINE is late.HF_HUB_OFFLINE is True
    with pytest.raises(Exception, match=r"(?i)offline"):
        huggingface_hub.utils.get_session().get("https://huggingface.co/someone/x")
    assert calls == []


def test_every_process_of_a_verification_is_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    environment.settle()
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_a_plain_configuration_fetches_nothing() -> None:
    plain = {**CONFIG, "_attn_implementation": "sdpa", "experts_implementation": "eager"}
    assert offline.fetches(plain) is None
