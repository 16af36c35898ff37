"""``verify --invariant``: without and with torch's reductions in fixed order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

from kvparity.cli.main import main
from kvparity.core.exit_codes import ExitCode
from kvparity.run.invariant_switch import asked, with_invariant
from kvparity.subjects.base import UnsupportedError
from kvparity_contracts.library import find
from kvparity_contracts.loader import load

EAGER = find("transformers-qwen3-eager").read_text()


def small(folder: Path) -> Path:
    """The library contract in float32, with a prompt, a few tokens and one control."""
    text = EAGER.replace("execution: bfloat16", "execution: float32")
    text = text.replace(
        "prompt_tokens: [3, 17, 40, 130], generate: 24", "prompt_tokens: [40], generate: 6"
    )
    path = folder / "small.yaml"
    path.write_text(
        text.partition("controls:")[0] + "controls: [narrow-cache, temperature-ignored]\n"
    )
    return path


def test_before_and_after(tmp_path, capsys):
    run = tmp_path / "run"
    command = ["verify", str(small(tmp_path)), "--run-dir", str(run), "--jobs", "1"]
    assert main([*command, "--invariant", "--json"]) == ExitCode.HOLDS
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["verdict"], found["before"]["verdict"]) == ("holds", "differs")
    before = {"attention": "eager", "devices": {"": "cpu"}}
    assert found["after"]["subject"]["used"] == before | {"invariant": True}
    assert found["before"]["subject"]["used"] == before
    assert "before: DIFFERS, after: HOLDS" in err
    assert "torch's reductions ran in fixed order: _log_softmax, _softmax, bmm, linear" in err
    # Both runs are whole: resumed, and each replayed in the arithmetic that it had.
    assert main([*command, "--invariant", "--resume"]) == ExitCode.HOLDS
    assert "before: DIFFERS, after: HOLDS" in capsys.readouterr().out
    for side, code in (("before", ExitCode.DIFFERS), ("after", ExitCode.HOLDS)):
        assert main(["replay", str(run / side), "c000"]) == code
        assert "the same result as the run recorded" in capsys.readouterr().out


@pytest.mark.slow
def test_a_model_with_its_default_attention(tmp_path, capsys):
    """Grouped heads, a cache, chunks and pads on both sides, all through torch's sdpa."""
    text = EAGER.replace("execution: bfloat16", "execution: float32")
    text = text.replace("attention: eager", "attention: sdpa\n  invariant: true")
    text = text.replace("[3, 17, 40, 130], generate: 24", "[3, 8], generate: 4")
    paths = "paths: [decode, generate, chunked(5), padded-left, padded-right]"
    text = text.replace("paths: [generate]", paths).partition("controls:")[0]
    (tmp_path / "sdpa.yaml").write_text(text + "controls: [stale-slot, unequal-lengths]\n")
    command = ["verify", str(tmp_path / "sdpa.yaml"), "--run-dir", str(tmp_path / "run")]
    assert main([*command, "--jobs", "1"]) == ExitCode.HOLDS
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "reductions ran" in x]
    operations = ["_log_softmax", "linear", "mean.dim", "scaled_dot_product_attention"]
    if transformers.__version__ < "5":  # it has operations of its own among them
        assert set(operations) <= set(line.partition(": ")[2].split(", ")), line
    else:
        assert ", ".join(operations) in line


def test_an_interrupted_run_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kvparity.run.verify.verify", interrupt)
    command = ["verify", str(small(tmp_path)), "--run-dir", str(tmp_path / "run"), "--invariant"]
    assert main(command) == ExitCode.INTERRUPTED
    assert f"--invariant --run-dir {tmp_path / 'run'} --resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("contract", "words"),
    [
        (
            "smoke",
            "invariant is for subjects of kind transformers, but smoke has one of kind decoder",
        ),
    ],
)
def test_where_there_is_nothing_to_swap(contract, words, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["verify", contract, "--invariant", "--run-dir", str(run)]) == ExitCode.USAGE
    assert words in capsys.readouterr().err
    assert not run.exists()


def test_a_contract_and_back(tmp_path):
    loaded = load(small(tmp_path))
    on = with_invariant(loaded, True)
    assert asked(on)
    assert not asked(loaded)
    assert with_invariant(loaded, False) is loaded
    assert with_invariant(on, False) == loaded
    assert not asked(load(find("smoke")))


def test_a_model_that_adds_elsewhere_is_refused(tmp_path):
    """A layer norm is not swapped: the mode says so, and the subject hands it on."""
    from kvparity.plan.schedule import Layout, Member, Span
    from kvparity.subjects.hf.subject import build
    from kvparity_contracts.subjects import Transformers

    config = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 32}
    contract = Transformers(kind="transformers", config=config, attention="eager", invariant=True)
    subject = build(
        contract,
        execution="float32",
        kv_cache="float32",
        device=torch.device("cpu"),
        seed=0,
        base=tmp_path,
    )
    session = subject.session([Member("m", 4)], Layout())
    with pytest.raises(UnsupportedError, match=r"GPT2LMHeadModel under.*native_layer_norm adds"):
        list(session.forward((Span(0, 0, 4, rows_from=0),), [[1, 2, 3, 4]]))
