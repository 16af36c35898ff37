"""Words, files and checkpoints that mean nothing: one clear message each, no traceback."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pair_contracts import PAIRS, verify, write
from transformers import LlamaConfig, LlamaForCausalLM

from kvparity.cli.main import main
from kvparity.core.exit_codes import ExitCode

MODEL = """\
version: 1
name: model
subject: {{kind: {kind}, checkpoint: here{more}}}
numerics: {{execution: float32}}
workloads:
  - {{name: short, prompt_tokens: [3, {length}], generate: 8}}
checks:
  - {{name: same bits, relation: invariance, paths: [decode]}}
controls: [stale-slot]
"""
SHAPE = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 256, "hidden_act": "silu",
    "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
}  # fmt: skip


def write_model(folder: Path, kind: str, length: int = 17) -> Path:
    path = folder / "model.yaml"
    more = ", attention: eager" if kind == "transformers" else ""
    path.write_text(MODEL.format(kind=kind, more=more, length=length))
    return path


@pytest.mark.parametrize("kind", ["decoder", "transformers"])
def test_a_checkpoint_that_is_not_whole(tmp_path, capsys, kind):
    contract, folder = write_model(tmp_path, kind), tmp_path / "here"

    def refused(*words: str) -> None:
        assert verify(contract, tmp_path / "run") == ExitCode.USAGE
        err = capsys.readouterr().err
        assert str(folder) in err
        assert all(word in err for word in words), err
        assert "Traceback" not in err
        shutil.rmtree(tmp_path / "run", ignore_errors=True)

    refused("folder")
    folder.mkdir()
    refused("config.json")
    (folder / "config.json").write_text(json.dumps(SHAPE))
    refused("safetensors")
    (folder / "model.safetensors").write_bytes(b"not a checkpoint")
    refused("safetensors")


@pytest.mark.parametrize("kind", ["decoder", "transformers"])
def test_a_prompt_longer_than_the_checkpoints_positions(tmp_path, capsys, kind):
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(tmp_path / "here")
    contract = write_model(tmp_path, kind, length=60)
    assert verify(contract, tmp_path / "run") == ExitCode.USAGE
    err = capsys.readouterr().err
    assert "68 tokens, but the subject has 64 positions; shorten" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["verify", "smokee"], "smoke"),
        (["verify", "no/such/file.yaml"], "no such file"),
        (["verify", "smoke", "--jobs", "0"], "expected at least 1"),
        (["verify", "smoke", "--jobs", "99999999999"], "at most 1024"),
        (["verify", "smoke", "--device", "cpu:7"], "'cpu:7' is unknown"),
        (["verify", "smoke", "--run-dir", "x" * 300], "File name too long"),
        (["order", f"{PAIRS}:prefill,{PAIRS}:decode", "--scale", "0"], "a number above 0"),
        (["order", f"{PAIRS}:prefill,{PAIRS}:decode", "--scale", "nan"], "a number above 0"),
        (["order", "attention-sdpa", "--scale", "0"], "--scale: a contract says this itself"),
        (
            ["trace", "smoke", "--workload", "short", "--path", "prefix(99)"],
            "prefix(99) over short",
        ),
        (["verify", "smoke", "--resume"], "--resume needs --run-dir"),
        (["verify", "smoke", "--device", "tpu"], "tpu"),
        (["verify", "smoke", "--device", "cuda:97"], "cuda:97 is not available"),
        (["replay", "no-such-run", "c000"], "holds no run"),
    ],
)
def test_words_that_mean_nothing(arguments, words, capsys):
    assert main(arguments) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("numerics:", "numericks:", "8:1", "numerics"),
        ("generate: 3}\n  - {name: longer", "generate: many}\n  - {name: longer", "10:", "many"),
        ("name: pair\n", "name: pair\nname: other\n", "3:1", "name"),
        ("paths: [decode, batched]", "paths: [decode], max_abs: 1.0e-3", "13:", "no tolerance"),
        ("[stale-slot,", "[stale-slott,", "15:", "stale-slot"),
        ("paths: [decode, batched]", "paths: [decoed]", "13:", "decode"),
    ],
)
def test_a_contract_that_is_wrong_names_the_place(tmp_path, capsys, old, new, place, words):
    path = write(tmp_path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert verify(path, tmp_path / "run") == ExitCode.USAGE
    err = capsys.readouterr().err
    assert f"{path}:{place}" in err
    assert words in err
    assert not (tmp_path / "run").exists()


def test_help_completion_lint_and_what_is_wrong_with_a_contract_import_no_torch(tmp_path):
    check = (
        "import json, sys; from kvparity.cli.main import main\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    try: code = main(arguments)\n"
        "    except SystemExit as end: code = end.code\n"
        "    heavy = {'torch', 'triton', 'numpy', 'transformers'} & set(sys.modules)\n"
        "    print(code, heavy, file=sys.stderr)"
    )
    good = str(write(tmp_path))
    (bad := tmp_path / "bad.yaml").write_text("name: bad")
    words = ["--help"], ["completion", "fish"], ["contract", "lint", good], ["verify", str(bad)]
    done = subprocess.run(
        [sys.executable, "-c", check, json.dumps(words)], capture_output=True, text=True, check=True
    )
    found = [line for line in done.stderr.splitlines() if line.endswith("set()")]
    assert found == ["0 set()"] * 3 + ["2 set()"], done.stderr
