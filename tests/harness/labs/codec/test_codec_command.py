"""``kvparity codec``: the report in all its forms, and bad input."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from kvparity.cli.main import main
from kvparity.core.exit_codes import ExitCode
from kvparity.labs.codec.picture import draw
from kvparity.labs.codec.text import render

DATA = Path(__file__).parent / "data"

CONTRACT = """\
version: 1
name: codecs
seed: 1
subject:
  kind: transformers
  attention: eager
  config:
    model_type: gemma3_text
    vocab_size: 256
    hidden_size: 32
    intermediate_size: 32
    num_hidden_layers: 3
    num_attention_heads: 2
    num_key_value_heads: 1
    head_dim: 16
    max_position_embeddings: 64
    sliding_window: 8
    layer_types: [sliding_attention, full_attention, sliding_attention]
numerics: {execution: bfloat16}
workloads:
  - {name: short, prompt_tokens: [3, 14], generate: 5}
  - {name: other, prompt_tokens: [4], generate: 3}
checks:
  - {name: same bits, relation: invariance, reference: prefill, paths: [generate]}
controls: [position-off-by-one]
"""
PAIR = """\
version: 1
name: pair
subject:
  kind: attention
  prefill: a:b
  decode: a:c
  heads: {query: 2, kv: 1, dim: 16}
numerics: {execution: float32}
workloads:
  - {name: short, prompt_tokens: [2, 5], generate: 3}
checks:
  - {name: same bits, relation: invariance, reference: prefill, paths: [decode]}
controls: all
"""
DECODER = """\
version: 1
name: coded
subject: {kind: decoder, preset: tiny}
numerics: {execution: float32, kv_cache: int8(16)}
workloads:
  - {name: short, prompt_tokens: [2, 5], generate: 3}
checks:
  - {name: same bits, relation: invariance, reference: prefill, paths: [decode]}
controls: [position-off-by-one]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("codec")
    for name, text in (("gemma", CONTRACT), ("pair", PAIR), ("coded", DECODER)):
        (where / f"{name}.yaml").write_text(text)
    shutil.copy(DATA / "odd_codecs.py", where)
    return where


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KVPARITY_DEVICE", "cpu")


class Fields(dict[str, Any]):
    """An object of JSON whose keys are attributes, too, as those of the typed document are."""

    __getattr__ = dict.__getitem__


@pytest.fixture(scope="module")
def report(folder: Path) -> Any:
    """What one run of the command prints and writes."""
    out, words = folder / "out", ["codec", str(folder / "gemma.yaml"), "--device", "cpu", "--json"]
    words += ["--out", str(out), "--budget", "max_abs_dlogp=2e-3", "--contexts", "10,100"]
    words += ["--codec", "int4(16)", "--codec", "k=int8(16),v=nf4(8)"]
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert main(words) == ExitCode.HOLDS
    found: Any = json.loads(printed.getvalue(), object_hook=Fields)
    assert (out / "codec.json").read_text() == printed.getvalue()
    assert (out / "codec.txt").read_text() == render(found) + "\n"
    assert (out / "drift.svg").read_text() == draw(found)
    return found


def test_the_document_holds_what_was_measured(report: dict[str, Any]) -> None:
    assert report["run"]["tokens"] == 8  # two sequences, five tokens each, the first is exact
    assert [layer["kind"] for layer in report["layer_plan"]] == ["window", "full", "window"]
    assert [codec["name"] for codec in report["codecs"]] == ["int4(16)", "k=int8(16),v=nf4(8)"]
    for codec in report["codecs"]:
        assert [point["layers"] for point in codec["depth"]] == [0, 1, 2, 3]
        assert codec["depth"][0]["differing"] == 0
        assert codec["depth"][-1]["differing"] > 0
        assert codec["all_stages_exact"]["differing"] == 0
        assert codec["budget"]["measured"]["max_abs_dlogp"] <= 2e-3
        assert all(size["calculated"] == size["measured"] for size in codec["sizes"])
        assert codec["tokens_coded_alone"]
        assert codec["stages_explain_all"]
    int4 = report["codecs"][0]
    # 8 bytes of codes and one scale of 4 for keys and for values, of 16 numbers of 2 bytes each
    assert int4["bytes_per_token"] == {"coded": 3 * 24, "execution": 3 * 64, "ratio": 0.375}
    assert [c["coded"] for c in int4["contexts"]] == [24 * (10 + 8 + 8), 24 * (100 + 8 + 8)]
    assert [c["execution"] for c in int4["contexts"]] == [64 * 26, 64 * 116]


def test_the_text_says_what_the_document_says(report: Any) -> None:
    text = render(report)
    for words in (
        "codecs: workload short, 8 tokens drawn after coded keys were seen, temperature 1",
        "bfloat16; codes are dequantised to bfloat16; layers: 1 keep all tokens, 2 keep a window",
        "int4(16)                      72  0.375",
        "no run without accumulation: the cache holds bfloat16 and rounds to it itself",
        "budget max_abs_dlogp <= 0.002: ",
        "100 tokens, calculated: 7,424 bytes as executed, 2,784 coded",
    ):
        assert words in text


def test_the_picture_has_a_line_and_a_mark_for_every_point(report: dict[str, Any]) -> None:
    root = ElementTree.fromstring(draw(report))
    space = "{http://www.w3.org/2000/svg}"
    words = [text.text for text in root.iter(f"{space}text")]
    for label in ("max |d logprob|", "approx_kl0", "coded layers", "budget 0.002", "0"):
        assert label in words
    groups = {each.get("id"): each for each in root.iter(f"{space}g")}
    for codec in report["codecs"]:
        for measure in ("max_abs_dlogp", "approx_kl0"):
            marks = list(groups[f"{measure} {codec['name']}"].iter(f"{space}use"))
            assert len(marks) == 4
            drifts = [point[measure] for point in codec["depth"]]
            by_height = sorted(range(4), key=lambda i: -float(marks[i].attrib["y"]))
            assert [drifts[i] for i in by_height] == sorted(drifts)  # higher is more
            places = [float(mark.attrib["x"]) for mark in marks]
            assert places == sorted(places)
    assert [name for name in groups if name and name.startswith("budget")] == ["budget-0.002"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["gone.yaml"], 2, "there is no such file"),
        (["pair.yaml"], 2, "a pair of kernels, which has no layers"),
        (["coded.yaml"], 2, "kv_cache is int8(16), which is a codec already"),
        (["gemma.yaml", "--codec", "int3"], 2, "no codec is called 'int3'"),
        (["gemma.yaml", "--codec", "int8(5)"], 2, "cannot store head dimension 16"),
        (["gemma.yaml", "--codec", "odd_codecs.py:Refuses"], 2, "head dimension 16 is not mine"),
        (["gemma.yaml", "--budget", "kl=1"], 2, "'kl=1' is no budget"),
        (["gemma.yaml", "--workload", "long"], 2, "the contract has short, other"),
        (["gemma.yaml", "--lengths", "5,x"], 2, "expected whole numbers from 1 on"),
        (["gemma.yaml", "--lengths", "65"], 2, "the subject has 64 positions"),
        (["gemma.yaml", "--contexts", "0"], 2, "expected whole numbers from 1 on"),
        (["gemma.yaml", "--dequantise", "float32"], 2, "cannot be kept by a cache in bfloat16"),
        (["gemma.yaml", "--device", "tpu"], 2, "tpu"),
        (["gemma.yaml", "--codec", "odd_codecs.py:Understates"], 3, "its tensors take 64"),
        (["gemma.yaml", "--codec", "odd_codecs.py:Keeps"], 3, "that it does not count"),
        (["gemma.yaml", "--codec", "odd_codecs.py:Raises"], 3, "raised RuntimeError"),
    ],
)
def test_bad_input_is_one_sentence(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["codec", *words, "--json"]) == code
    out, err = capsys.readouterr()
    assert message in err
    assert len(err.strip().splitlines()) == 1 or words == ["gone.yaml"]
    document = json.loads(out)
    assert document["exit_code"] == code
    assert message in document["error"]


def test_a_codec_whose_tokens_are_not_coded_alone_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["gemma.yaml", "--workload", "other", "--codec", "odd_codecs.py:Together"]
    assert main(["codec", *words]) == 0
    assert (
        "a token's codes depend on the tokens that are written with it" in capsys.readouterr().out
    )
    assert main(["codec", *words[:-1], "odd_codecs.py:Unexplained"]) == 0
    assert "with every stage exact some bits differ" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_bad_input(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["gemma.yaml", "--workload", "other", "--codec", "float32", "--out", "gemma.yaml"]
    assert main(["codec", *words]) == 2
    assert "--out gemma.yaml cannot be written" in capsys.readouterr().err


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from kvparity.cli.main import main\n"
        "main(['codec', '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--budget" in done.stdout
