"""docs/rollouts.md is true: every block of Python is run, those of other libraries on stand-ins."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kvparity.rollouts import RolloutWriter, read_rollouts
from kvparity.rollouts.anomalies import Anomaly
from kvparity.rollouts.open import LAYOUTS
from kvparity_contracts.linter import lint
from kvparity_contracts.loader import load

PAGE = (Path(__file__).parents[2] / "docs/rollouts.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


class _Trainer:
    def _generate_and_score_completions(self, inputs: object) -> dict[str, torch.Tensor]:
        ids, mask = torch.tensor([[1, 2]]), torch.ones(1, 2, dtype=torch.int64)
        names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
        batch = dict(zip(names, (ids, mask, ids, mask), strict=True))
        return batch | {"sampling_per_token_logps": torch.tensor([[-1.0, -2.0]])}


def _vllm_output() -> SimpleNamespace:
    logprobs = [{7: SimpleNamespace(logprob=-0.5)}]
    return SimpleNamespace(
        prompt_token_ids=[1], outputs=[SimpleNamespace(token_ids=[7], logprobs=logprobs)]
    )


def test_the_blocks_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with RolloutWriter("rescored.jsonl") as writer:
        writer.write([5, 9], [3, 8, 1], [-0.25, -1.75, -0.75])
    ids, mask = torch.tensor([[1, 2]]), torch.ones(1, 2)
    values = torch.tensor([[-1.0, -2.0]])
    batch = {"prompts": ids, "responses": ids, "attention_mask": torch.ones(1, 4)}
    batch |= {"response_mask": mask, "rollout_log_probs": values, "old_log_probs": values}
    names: dict[str, object] = {
        "llm": SimpleNamespace(generate=lambda prompts, params: [_vllm_output()]),
        "SamplingParams": SimpleNamespace,
        "prompts": ["hello"],
        "GRPOTrainer": _Trainer,
        "torch": torch,
        "data": SimpleNamespace(batch=batch),
    }
    for block in BLOCKS:
        exec(block, names)
    names["Recording"]()._generate_and_score_completions(None)  # type: ignore[operator]
    out = capsys.readouterr().out
    assert "1 sequences, 3 tokens, equal bits 0.666" in out
    assert "max |d| 0.25" in out
    assert len(BLOCKS) == 6
    for path in ("vllm.jsonl", "trl.pt", "verl.pt"):
        assert len(list(read_rollouts(path))) == 1


def test_the_tables_are_whole() -> None:
    named = set(re.findall(r"`([^`\n]+)`", PAGE))
    assert {layout.name.removesuffix(", with requests") for layout in LAYOUTS} <= named
    rows = PAGE.split("| found | what is done |")[1].split("\n\n")[0]
    assert rows.count("| left out |") == sum(kind.rule.value == "left out" for kind in Anomaly)


def test_the_contracts_are_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        (tmp_path / "c.yaml").write_text(block)
        assert lint(load(tmp_path / "c.yaml")) == []
