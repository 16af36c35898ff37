"""The notebook: its cells run one after the other, its demo on a tiny model."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from pages import ROOT
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kvparity.cli.main import main
from kvparity.core.isolation.inside import here
from kvparity.labs.demo import model

CELLS = json.loads((ROOT / "docs/notebook.ipynb").read_text())["cells"]


def tiny(folder: Path) -> Path:
    """In place of the model that a package brings."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=64, num_hidden_layers=1, eos_token_id=None, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(64)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0").save_pretrained(folder)
    (folder / "chat_template.jinja").write_text("w1 {{ messages[0]['content'] }} w2")
    return folder


def run(cell: str, names: dict[str, object]) -> object:
    """What the last line of a cell shows; ``!kvparity`` is the command."""
    if cell.startswith("!kvparity "):
        return main(cell.removeprefix("!kvparity ").split())
    *before, last = ast.parse(cell).body
    exec(compile(ast.Module(before, []), "cell", "exec"), names)
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    exec(compile(ast.Module([last], []), "cell", "exec"), names)
    return None


def test_the_notebook_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model, "missing", lambda: None)
    monkeypatch.setattr(model, "unpacked", tiny)
    display = ModuleType("IPython.display")
    display.IFrame = lambda page, **_: Path(page).read_text()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    names: dict[str, object] = {}
    shown = []
    with here():
        for cell in CELLS:
            if cell["cell_type"] == "code":
                assert not cell["outputs"]
                shown.append(run("".join(cell["source"]), names))
    pair, where, demo, page = (each for each in shown if each is not None)
    assert pair.holds  # type: ignore[attr-defined]
    assert "<table" in pair._repr_html_()  # type: ignore[attr-defined]
    assert where.sequence.startswith("lengths/")  # type: ignore[attr-defined]
    assert demo in (0, 1)
    assert "generate agrees with one forward pass" in str(page)
    printed = capsys.readouterr().out
    assert "the model: w" in printed
    assert "generate against prefill over chat" in printed
