"""The report of a resumed run is that of a run left alone, in every field but times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import naive_pair
import pytest
import torch
from tiny_transformers import CONFIG

from kvparity.report.run_dir import Evidence
from kvparity.run import worker
from kvparity.run.verify import verify
from kvparity.subjects.hf import subject
from kvparity.subjects.hf.run_counts import watch
from kvparity_contracts.loader import load

PAIR = naive_pair.__file__
TIMES = {"elapsed_s", "seconds", "run_dir"}
DECODER = {
    "layers": 1, "hidden_size": 16, "heads": 2, "kv_heads": 1, "head_dim": 16,
    "intermediate_size": 16, "vocab_size": 300, "max_positions": 64,
}  # fmt: skip
SUBJECTS: dict[str, dict[str, Any]] = {
    "transformers": {
        "kind": "transformers", "config": CONFIG | {"num_hidden_layers": 1}, "attention": "eager",
        "invariant": True,
    },
    "attention": {
        "kind": "attention", "prefill": f"{PAIR}:prefill", "decode": f"{PAIR}:decode",
        "heads": {"query": 2, "kv": 1, "dim": 4}, "empty": "never",
    },
    "decoder": {
        "kind": "decoder", "config": DECODER, "attention": "sdpa", "operations": "torch",
    },
}  # fmt: skip
PATHS = {"transformers": ["padded-left", "generate"]}
WORKLOADS = [{"name": "a", "prompt_tokens": [5, 4], "generate": 2},
             {"name": "b", "prompt_tokens": [3], "generate": 2}]  # fmt: skip


def watched(model: Any) -> None:
    """A model that adds where it is given a batch, and nowhere else: one path has an operation."""
    watch(model)

    def adds(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if len(kwargs["input_ids"]) > 1:
            torch.ones(3).sum()

    model.register_forward_pre_hook(adds, with_kwargs=True)


class Stopped(BaseException):
    """The run is killed."""


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(each) for key, each in value.items() if key not in TIMES}
    return [timeless(each) for each in value] if isinstance(value, list) else value


def run(contract: Path, folder: Path, *, resume: bool = False, cases: int | None = None) -> Any:
    """The report and the lines of its units, from a fresh subject; ``cases``: killed after them."""
    append = Evidence.append

    def counting(self: Evidence, file: str, value: dict[str, Any]) -> None:
        append(self, file, value)
        if file == "cases.jsonl" and self.count(file) == cases:
            raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "_subjects", {})
        patch.setattr(subject, "watch", watched)
        patch.setattr(Evidence, "append", counting)
        report = verify(
            load(contract), device="cpu", folder=folder, jobs=1, resume=resume, command="",
            progress=lambda *_: None,
        ).document()  # fmt: skip
    lines = sorted(Evidence(folder).lines("units.jsonl"), key=lambda line: line["unit"])
    return timeless(report), timeless(lines)


@pytest.mark.parametrize("kind", SUBJECTS)
def test_it_equals_one_left_alone(kind: str, tmp_path: Path) -> None:
    relations = [{"name": "bits", "relation": "invariance",
                  "paths": PATHS.get(kind, ["decode", "chunked(2)"])}]  # fmt: skip
    document = {
        "version": 1, "name": "resumed", "subject": SUBJECTS[kind], "workloads": WORKLOADS,
        "numerics": {"execution": "float32"}, "checks": relations, "controls": ["stale-slot"],
    }  # fmt: skip
    contract = tmp_path / "c.json"
    contract.write_text(json.dumps(document))
    alone = run(contract, tmp_path / "alone")
    assert alone[0]["verdict"] in ("holds", "differs")
    if kind == "transformers":
        assert "sum" in alone[0]["subject"]["invariant"]
    for cases in (1, 2, 3):
        folder = tmp_path / str(cases)
        with pytest.raises(Stopped):
            run(contract, folder, cases=cases)
        assert run(contract, folder, resume=True) == alone
