"""A trained model against itself: every birth, and each recomputed by hand on both shapes.

    python ci/studies/located_model.py FOLDER     writes docs/results/located-model.json

FOLDER is a checkpoint of transformers with its tokenizer. SDPA in bfloat16: decode against one
forward pass over the same ids, which decode drew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections import Counter
from pathlib import Path

from study import ROOT, write

os.environ.setdefault("TRITON_INTERPRET", "1")

import torch
import transformers

sys.path.insert(0, str(ROOT / "tests/harness"))

from by_hand import recomputed

from kvparity.births.account import account
from kvparity.births.causes import cause, first_birth
from kvparity.record.path_run import Setting
from kvparity.run.unit import Runner
from kvparity.subjects.hf.subject import build
from kvparity_contracts.contract import Contract
from kvparity_contracts.paths import DECODE, PREFILL

TEXTS = ("What is 17 times 23?", "Write a haiku about rounding.")


def main() -> int:
    """Locate, recompute, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--generate", type=int, default=16)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.folder)
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
        )
        for text in TEXTS
    ]
    contract = Contract.model_validate(
        {
            "version": 1,
            "name": "trained",
            "subject": {
                "kind": "transformers", "checkpoint": str(args.folder), "attention": "sdpa",
            },
            "numerics": {"execution": "bfloat16"},
            "workloads": [{"name": "w", "prompts": prompts, "generate": args.generate}],
            "checks": [{"name": "x", "relation": "invariance", "paths": ["decode"]}],
            "controls": ["stale-slot"],
        }
    )  # fmt: skip
    subject = build(
        contract.subject, execution="bfloat16", kv_cache="bfloat16",  # type: ignore[arg-type]
        device=torch.device("cpu"), seed=0, base=args.folder,
    )  # fmt: skip
    setting = Setting(contract, subject)
    runner = Runner(setting, setting.plans("w"), None)
    runner.rollout(DECODE)
    sides = runner.side(PREFILL), runner.side(DECODE)
    start = time.perf_counter()
    found = account(*sides)
    seconds = time.perf_counter() - start
    lengths = {f"w/{n}": len(ids) for n, ids in enumerate(prompts)}
    by_hand = recomputed(subject, sides[0], found.births, lengths)
    why, born = cause(found), Counter(each.operation for each in found.births)
    kinds = Counter[str]()
    for operation, rows in born.items():
        kinds[operation.rpartition(".")[2]] += rows
    document = {
        "command": "python ci/studies/located_model.py FOLDER",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "machine": platform.machine(),
        "model": args.folder.resolve().name,
        "layers": subject.model.config.num_hidden_layers,
        "prompts": [len(ids) for ids in prompts],
        "generate": args.generate,
        "rows": found.rows,
        "differing_rows": found.differing,
        "operations": found.operations,
        "births": len(found.births),
        "births_by_kind": dict(kinds),
        "layers_with_attention_births": sum(name.endswith(" attention") for name in born),
        "first": first_birth(found).operation,
        "complete": found.complete,
        "left_out": found.left_out,
        "cause": {"kind": why.kind, "part": why.part},
        "by_hand": {
            "same_bits_on_both_shapes": dict(by_hand.equal),
            "other_bits": len(by_hand.unlike),
            "not_recomputed": dict(by_hand.left),
        },
        "seconds": round(seconds, 1),
    }
    page = ROOT / "docs/results/located-model.json"
    write(page, document)
    print(json.dumps(document, indent=1))
    return 0 if found.complete and not by_hand.unlike else 1


if __name__ == "__main__":
    sys.exit(main())
