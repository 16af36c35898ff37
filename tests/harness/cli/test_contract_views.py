"""``kvparity contract new``, ``explain``, ``diff`` and ``show``."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path

import pytest
from pair_contracts import write

from kvparity.cli.main import main
from kvparity_contracts import library, lint, load

KERNELS = "def prefill(): ...\ndef decode(): ...\n"
PAIR = ("--prefill", "k.py:prefill", "--decode", "k.py:decode", "--heads", "6,2,16")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("k.py").write_text(KERNELS)
    Path("p.txt").write_text("What is a cache?\n")
    Path("model").mkdir()
    config = {"model_type": "qwen3", "dtype": "float16", "vocab_size": 64}
    Path("model/config.json").write_text(json.dumps(config))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


KINDS = {
    "pair": PAIR,
    "half": (*PAIR, "--dtype", "bfloat16"),
    "short pair": (*PAIR, "--lengths", "1,2", "--generate", "2"),
    "flash-attention": (*PAIR, "--signature", "flash-attn", "--page", "16"),
    "checkpoint": ("--checkpoint", "model"),
    "prompts": ("--checkpoint", "model", "--prompts", "p.txt"),
    "vllm": ("--server", "http://localhost:8000", "--vocabulary", "200"),
    "sglang": ("--server", "http://localhost:1", "--vocabulary", "126", "--api", "sglang"),
}


@pytest.mark.parametrize("name", ["1", "true", "null", "1e5", "it's mine"])
def test_any_name_of_a_file_will_do(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["contract", "new", f"{name}.yaml", *PAIR]) == 0
    command = capsys.readouterr().out.partition("next: ")[2]
    assert shlex.split(command) == ["kvparity", "verify", f"{name}.yaml"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_contract_is_valid(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["contract", "new", "My first.yaml", *KINDS[kind]]) == 0
    assert "next: kvparity verify" in capsys.readouterr().out
    found = load("My first.yaml")
    assert found.contract.name == "my-first"
    assert len(found.prompt_files) == (kind == "prompts")
    if kind not in ("short pair", "prompts"):  # of few tokens
        assert lint(found) == []
    assert Path("contract.schema.json").read_text() == library.FOLDER.joinpath(
        "contract.schema.json"
    ).read_text(encoding="utf-8")
    first = Path("My first.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=contract.schema.json"


def test_a_checkpoint_brings_its_format() -> None:
    assert main(["contract", "new", "a.yaml", "--checkpoint", "model"]) == 0
    assert load("a.yaml").contract.numerics.execution == ("float16",)


REFUSED = {
    "nothing": ((), "missing --prefill and --decode, --checkpoint, or --server"),
    "two subjects": (("--checkpoint", "model", *PAIR), "a contract has one subject"),
    "half a pair": (("--prefill", "k.py:prefill"), "missing --decode"),
    "two heads": ((*PAIR[:4], "--heads", "6,2"), "--heads: found '6,2', expected three numbers"),
    "words for heads": ((*PAIR[:4], "--heads", "a"), "--heads: found 'a', expected numbers"),
    "an unknown format": ((*PAIR, "--dtype", "float8"), "--dtype: found 'float8', expected one"),
    "a format, before what is missing": (
        ("--server", "http://x:1", "--dtype", "float8"), "--dtype: found 'float8', expected one"
    ),
    "lengths, before what is missing": (
        ("--server", "http://x:1", "--lengths", "a"), "--lengths: found 'a', expected numbers"
    ),
    "no vocabulary": (("--server", "http://x:1"), "missing --vocabulary"),
    "no such function": (
        ("--prefill", "k.py:prefil", *PAIR[2:]), "did you mean k.py:prefill?"
    ),
    "no such folder": (("--checkpoint", "modl"), "there is no folder"),
    "a signature of a checkpoint": (
        ("--checkpoint", "model", "--signature", "vllm"), "--signature: of a pair"
    ),
    "lengths of given prompts": (
        ("--checkpoint", "model", "--prompts", "p.txt", "--lengths", "3"), "leave out one of them"
    ),
    "a signature that reads pages alone": ((*PAIR, "--signature", "vllm"), "subject.page"),
    "no tokens": ((*PAIR, "--generate", "0"), "generate"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_written_is_refused_and_leaves_no_file(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    options, words = REFUSED[name]
    before = sorted(Path().rglob("*"))
    assert main(["contract", "new", "new.yaml", *options]) == 2
    assert words in capsys.readouterr().err
    assert main(["contract", "new", "a/b/new.yaml", *options]) == 2
    assert sorted(Path().rglob("*")) == before


def test_nothing_is_written_over(capsys: pytest.CaptureFixture[str]) -> None:
    for file, words in (("k.py", "ends in .yaml"), ("old.yaml", "old.yaml is there")):
        Path("old.yaml").write_text("mine")
        assert main(["contract", "new", file, *PAIR]) == 2
        assert words in capsys.readouterr().err
    assert Path("old.yaml").read_text() == "mine"
    assert Path("k.py").read_text() == KERNELS


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ("\nk.py:prefill\nk.py:decode\n\n", 0),
        ("checkpoint\nmodel\n", 0),
        ("server\n\n77\n", 0),
        ("engine\n", 2),
        ("pair\n", 2),
    ],
)
def test_a_terminal_is_asked(answers: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answers))
    assert main(["contract", "new", "asked.yaml"]) == code
    assert Path("asked.yaml").exists() is (code == 0)


def test_explain_says_what_would_run_and_how_long_it_took(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contract = str(write(tmp_path))
    assert main(["contract", "explain", contract]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:5] == [
        "same bits  [invariance]  4 cases",
        "    decode, batched against prefill, over short, longer, in float32",
        "right  [accuracy]  2 cases",
        "    prefill, over short, longer, in float32",
    ]
    assert "controls: stale-slot, narrow-cache, wrong-input" in lines
    assert "workload longer: compares rows with 11 to 13 keys; crosses no edge of a tile" in lines
    # prefill 13 and 14, decode 11 and 13; batched has strangers beside them: 28 and 35
    assert "to compute: 114 tokens on all paths, without the controls" in lines
    assert lines[-1].startswith("there is no earlier run of this file")
    assert main(["verify", contract, "--jobs", "1"]) == 0
    capsys.readouterr()
    assert main(["contract", "explain", contract]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("the last run took ")


def test_explain_counts_what_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The cases, and which edges rows lie on both sides of."""
    assert main(["contract", "explain", "smoke"]) == 0
    out = capsys.readouterr().out
    assert "workload varlen: compares rows with 1 to 4, 31 to 34, 64 to 67, 130 to 133 keys" in out
    assert "crosses 64\n" in out
    assert "crosses 256\n" in out
    assert "    not planted" not in out


def test_diff_is_an_exit_code_and_a_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = write(tmp_path)
    new = tmp_path / "new.yaml"
    new.write_text(old.read_text().replace("[decode, batched]", "[decode]"))
    assert main(["contract", "diff", str(old), str(old)]) == 0
    assert capsys.readouterr().out == "both claim the same\n"
    assert main(["contract", "diff", str(new), str(old)]) == 0
    assert capsys.readouterr().out.startswith("added: invariance: batched against prefill over ")
    assert main(["contract", "diff", str(old), str(new), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["weaker"] is True
    assert len(document["lost"]) == 1
    assert main(["contract", "diff", str(old), "absent.yaml"]) == 2


def test_show_prints_the_file_and_list_is_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["contract", "show", "smoke"]) == 0
    assert capsys.readouterr().out == library.find("smoke").read_text(encoding="utf-8")
    assert main(["contract", "show", "smok"]) == 2
    capsys.readouterr()
    assert main(["contract", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["contracts"]
    assert [row["name"] for row in rows] == library.names()
    assert {"attention", "decoder", "server", "sides", "transformers"} == {r["kind"] for r in rows}
