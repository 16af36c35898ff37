"""The scripts themselves: that they are independent, run by hand, and know what was computed by
hand."""

from __future__ import annotations

import ast
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import cache_contents
import drift_numbers
import float64_accuracy
import logprob_bits
import numpy as np
import pytest
import row_bits
import torch
from net import numbers
from records import DECODE, INDEX, VALUES, record
from safetensors.numpy import save_file

from kvparity.core.drift import drift
from kvparity.relations import bits_and_limits

HERE = Path(__file__).parent
SCRIPTS = sorted(
    file
    for file in HERE.glob("*.py")
    if not file.name.startswith("test_") and '__name__ == "__main__"' in file.read_text()
)
ALLOWED = {"__future__", "collections", "decimal", "json", "pathlib", "sys", "typing",
           "numpy", "safetensors"}  # fmt: skip
FORBIDDEN = {"exec", "eval", "compile", "__import__", "open", "getattr", "globals", "vars"}


def shared(source: str) -> list[str]:
    """What in a script's source could be code of the project, or bring it in."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names = ["." * node.level + (node.module or "")]
        found += [name for name in names if name.partition(".")[0] not in ALLOWED]
        if isinstance(node, ast.Name) and node.id in FORBIDDEN:
            found.append(node.id)
        if isinstance(node, ast.Attribute) and node.attr in ("modules", "path", "meta_path"):
            found.append(node.attr)
    return found


def test_there_are_scripts() -> None:
    names = [script.stem for script in SCRIPTS]
    assert names == sorted([*GIVEN, "llama_float64"])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda each: each.stem)
def test_a_script_is_short_and_shares_no_code(script: Path) -> None:
    source = script.read_text()
    assert shared(source) == []
    assert len(source.splitlines()) <= 80


@pytest.mark.parametrize(
    "line",
    [
        "import kvparity",
        "from kvparity_kernels.digest import row_digest",
        "import kvparity_contracts.loader as x",
        "from . import net",
        "import importlib",
        "import torch",
        "def f():\n    import row_bits",
        "__import__('kvparity')",
        "import sys; sys.path.insert(0, 'harness')",
        "import sys; sys.modules['kvparity']",
    ],
)
def test_shared_code_would_be_seen(line: str) -> None:
    assert shared(line) != []


GIVEN: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "logprob_bits": (
        {"logits": np.zeros((1, 4), np.float32), "targets": np.array([2])},
        {"logits": np.array([[0, 0, 1, 0]], np.float32), "targets": np.array([2])},
        {"equal": False, "differing_tokens": 1, "rows": [0], "tokens": 1},
    ),
    "row_bits": (
        {"rows": np.array([[1.0, 0.0]], np.float32)},
        {"rows": np.array([[1.0, -0.0]], np.float32)},
        {"equal": False, "differing_rows": 1, "max_ulp": 1, "differing_elements": 1},
    ),
    "drift_numbers": (
        {"logprobs": np.array([-1.0, -1.5], np.float32)},
        {"logprobs": np.array([-1.0, -1.0], np.float32)},
        {"max_abs_dlogp": 0.5, "clipfrac0": 0.5, "tokens": 2},
    ),
    "float64_accuracy": (
        {"out": np.array([[[2.0, 5.5]]], np.float32)},
        {
            "q": np.zeros((1, 1, 2), np.float32),
            "k": np.ones((1, 3, 1, 2), np.float32),
            "v": np.array([[[[1.0, 4.0]], [[3.0, 6.0]], [[99.0, 99.0]]]], np.float32),
            "lengths": np.array([2]),  # the third key is not seen: the mean of two is (2, 5)
            "scale": np.ones(1),
        },
        {"rows": 1, "max_abs": 0.5, "worst": 0, "column": 1},
    ),
    "cache_contents": (
        {"k": np.ones((1, 2, 1, 2), np.float32), "v": np.ones((1, 2, 1, 2), np.float32)},
        {"k": np.ones((1, 2, 1, 2), np.float32), "v": np.full((1, 2, 1, 2), 2, np.float32)},
        {"equal": False, "compared": 4, "differing": 2, "places": [[0, 0, "v"], [1, 0, "v"]]},
    ),
}


def by_hand(script: str, *arguments: str) -> dict[str, Any]:
    """What a script prints, in a process that finds neither this project nor these tests."""
    command = [sys.executable, "-I", str(HERE / f"{script}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("script", GIVEN)
def test_a_script_runs_by_hand(script: str, tmp_path: Path) -> None:
    *sides, wanted = GIVEN[script]
    files = [str(tmp_path / f"{name}.safetensors") for name in "ab"]
    for file, tensors in zip(files, sides, strict=True):
        save_file(tensors, file)
    found = by_hand(script, *files)
    assert {name: found[name] for name in wanted} == wanted


def test_a_llama_by_hand(tmp_path: Path) -> None:
    """Of no layer, and with rows of 3 and 4: (0.6, 0.8) of sqrt(2), times the head's weights."""
    weights = {
        "model.embed_tokens.weight": np.array([[9.0, 9.0], [3.0, 4.0]]),
        "model.norm.weight": np.array([1.0, 2.0]),
        "lm_head.weight": np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),
    }
    config = {"rms_norm_eps": 0.0, "num_attention_heads": 1, "num_key_value_heads": 1,
              "hidden_size": 2, "rope_theta": 1e4, "num_hidden_layers": 0}  # fmt: skip
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    files = [str(tmp_path / name) for name in ("model.safetensors", "config.json")]
    wanted = [math.sqrt(2) * each for each in (0.6, 1.6, 2.2)]
    assert by_hand("llama_float64", *files, "0", "1")["logits"] == pytest.approx(wanted, 1e-15)


def test_a_logprob_by_hand() -> None:
    """Of (0, ln 3) the second has 3/4; at temperature 1/2 the odds are 9 to 1."""
    logits, second = np.array([[0.0, math.log(3)]]), np.array([1])
    assert logprob_bits.logprobs(logits, second, 1.0)[0] == pytest.approx(math.log(3 / 4), 1e-15)
    assert logprob_bits.logprobs(logits, second, 0.5)[0] == pytest.approx(math.log(9 / 10), 1e-15)
    exact = {"logits": logits, "targets": second}
    assert float64_accuracy.exact_logprobs(exact, 0.5)[0] == pytest.approx(math.log(0.9), 1e-15)


def test_drift_by_hand() -> None:
    """d = 0, ln 2 and -ln 4: terms of 0, 1 - ln 2 and ln 4 - 3/4, so ln 2 + 1/4 of three."""
    rollout = [-1.0, math.log(1 / 4), math.log(1 / 2)]
    trainer = [-1.0, math.log(1 / 2), math.log(1 / 8)]
    said = drift_numbers.answer(rollout, trainer)
    assert said["max_abs_dlogp"] == pytest.approx(math.log(4), 1e-15)
    assert said["approx_kl0"] == pytest.approx((math.log(2) + 1 / 4) / 3, 1e-15)
    assert said["clipfrac0"] == 2 / 3
    sides = (torch.tensor(each, dtype=torch.float64) for each in (rollout, trainer))
    found = drift(**dict(zip(("rollout", "trainer"), sides, strict=True)))
    assert numbers(vars(found), said) == []


@pytest.mark.parametrize("edge", [0.8, 1.2])
def test_a_ratio_just_inside_and_just_outside_of_the_clip(edge: float) -> None:
    """Two neighbours in float32 between which the edge lies."""
    at = np.float32(math.log(edge))
    near = [float(np.nextafter(at, np.float32(side))) for side in (-9, 9)]
    said = [drift_numbers.answer([0.0, 0.0], [0.0, d])["clipfrac0"] for d in near]
    assert sorted(said) == [0.0, 0.5]
    for d, share in zip(near, said, strict=True):
        found = drift(rollout=torch.zeros(2), trainer=torch.tensor([0.0, d]))
        assert found.clipfrac0 == share


def test_unequal_lengths_are_no_answer() -> None:
    whole, short = VALUES[:, 0].numpy(), VALUES[:-1, 0].numpy()
    assert logprob_bits.answer({"logprobs": whole}, {"logprobs": short}) == {
        "equal": None, "tokens": [5, 4],
    }  # fmt: skip
    found = bits_and_limits.invariance(
        record(), record(DECODE, values=VALUES[:-1], digests=(1, 2, 3, -4), index=INDEX[:-1]),
        column=0,
    )  # fmt: skip
    assert (found.outcome, found.reason) == (
        "void", "the two sides differ in length: 5 against 4 tokens",
    )  # fmt: skip
    rows = np.zeros((2, 3), np.float32)
    assert row_bits.answer({"rows": rows}, {"rows": rows[:1]})["equal"] is None
    both = {"k": rows.reshape(1, 2, 1, 3), "v": rows.reshape(1, 2, 1, 3)}
    assert (
        cache_contents.answer(both, {name: x[:, :1] for name, x in both.items()})["equal"] is None
    )
