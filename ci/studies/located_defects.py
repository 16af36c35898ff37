"""Planted defects of the reference decoder, located; and what a pass of digests takes.

    python ci/studies/located_defects.py          writes docs/results/located-defects.*

Each control that a check of invariance must catch is planted in the first fixture of the matrix of
defects that shows it. ``TRUTH`` says where it was planted, written from the controls' own words.
The cost is that of a transformers model of hidden size 1024, with and without digests, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TRITON_INTERPRET", "1")

import torch
import transformers
from in_turns import in_turns
from marked_table import put

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/harness"))

from located import NothingPlantedError, located  # noqa: E402 - the tests' own

from kvparity.labs.defect_matrix.fixture_contracts import FIXTURES  # noqa: E402
from kvparity.locate.account import Account  # noqa: E402
from kvparity.locate.causes import cause  # noqa: E402
from kvparity.locate.digests import digest_pass  # noqa: E402
from kvparity.record.path_run import PathRun, Setting  # noqa: E402
from kvparity.run.unit import Runner  # noqa: E402
from kvparity.subjects.hf.subject import build  # noqa: E402
from kvparity_contracts.contract import Contract  # noqa: E402
from kvparity_contracts.paths import PathName  # noqa: E402

RESULTS = ROOT / "docs/results"
ATTENTION = (
    "split-by-batch tile-by-query-length split-from-chunk tile-by-neighbour "
    "kernel-by-longest-query tile-by-mean-query splits-over-batch mask-follows-alignment "
    "tile-by-query-count kernel-by-bucket tuned-elsewhere replays-captured-splits "
    "cascade-of-shared-prefix hit-merges-states chunk-from-budget polynomial-exp2 "
    "window-drops-split window-one-short tile-by-store"
)
SUMS = (
    "norm-block-by-rows linear-kernel-by-rows linear-split-where-narrow linear-split-by-tokens "
    "linear-contracts-by-rows linear-by-rows-per-request"
)
POSITIONS = (
    "position-off-by-one rope-table-bfloat16 decode-at-position-zero padding-shifts-positions "
    "prefix-shifts-positions"
)
MEMORY = (
    "stale-slot narrow-cache ring-stale-on-reuse scale-ignored-in-prefill scale-from-first-input "
    "stale-after-update"
)
LOGPROBS = (
    "temperature-ignored log-of-softmax raw-rollout-logprobs scaled-logprobs top-p-renormalised "
    "inlined-logprob sampler-by-batch"
)
TRUTH = {
    **dict.fromkeys(ATTENTION.split(), "attention"),
    **dict.fromkeys(SUMS.split(), "reduction order"),
    **dict.fromkeys(POSITIONS.split(), "position"),
    **dict.fromkeys(MEMORY.split(), "memory"),
    **dict.fromkeys(LOGPROBS.split(), "logprob semantics"),
    **dict.fromkeys(("padding-leaks", "padding-mask-skipped-alone"), "attention"),
    **dict.fromkeys(("baked-cache", "baked-position", "frozen-length"), "not reported"),
    "order-by-launch": "state",
}


def first_found(control: str) -> tuple[str, Account] | None:
    """The account in the first fixture in which the defect changes a compared row."""
    for name, fixture in FIXTURES.items():
        if fixture.contract.subject.kind != "decoder":
            continue
        try:
            found = located(name, control)
        except NothingPlantedError:
            continue
        if found.differing:
            return name, found
    return None


def row(control: str) -> dict[str, object]:
    """What was found of one planted defect."""
    got = first_found(control)
    if got is None:
        return {"control": control, "fixture": None, "truth": TRUTH[control], "right": False}
    fixture, found = got
    born = dict.fromkeys(
        each.operation.partition(" ")[2] or each.operation for each in found.births
    )
    kind = cause(found).kind
    return {
        "control": control,
        "fixture": fixture,
        "differing": found.differing,
        "born": list(born),
        "complete": found.complete,
        "cause": kind,
        "truth": TRUTH[control],
        "right": kind == TRUTH[control],
    }


def table(rows: list[dict[str, object]]) -> str:
    """The rows as a table."""
    lines = [
        "| planted | born in | account | cause | planted in |",
        "| --- | --- | --- | --- | --- |",
    ]
    for each in rows:
        born = ", ".join(map(str, each.get("born") or ())) or "–"
        account = "complete" if each.get("complete") else "–"
        kind = each.get("cause", "no fixture shows it")
        mark = kind if each["right"] else f"**{kind}**"
        lines.append(f"| {each['control']} | {born} | {account} | {mark} | {each['truth']} |")
    return "\n".join(lines)


def cost(repeats: int) -> dict[str, object]:
    """A pass of digests beside the plain run of the same path."""
    shape = {
        "model_type": "qwen3", "vocab_size": 8192, "hidden_size": 1024, "intermediate_size": 3072,
        "num_hidden_layers": 4, "num_attention_heads": 16, "num_key_value_heads": 8,
        "head_dim": 64, "max_position_embeddings": 1024,
    }  # fmt: skip
    contract = Contract.model_validate(
        {
            "version": 1,
            "name": "cost",
            "subject": {"kind": "transformers", "config": shape, "attention": "sdpa"},
            "numerics": {"execution": "float32"},
            "workloads": [{"name": "w", "prompt_tokens": [128], "generate": 32}],
            "checks": [{"name": "x", "relation": "invariance", "paths": ["decode"]}],
            "controls": ["stale-slot"],
        }
    )
    with tempfile.TemporaryDirectory() as scratch:
        subject = build(
            contract.subject, execution="float32", kv_cache="float32",  # type: ignore[arg-type]
            device=torch.device("cpu"), seed=0, base=Path(scratch),
        )  # fmt: skip
    setting = Setting(contract, subject)
    runner = Runner(setting, setting.plans("w"), None)
    runner.rollout(PathName("decode"))
    found: dict[str, object] = {"shape": shape, "prompt": 128, "generate": 32, "repeats": repeats}
    for path in ("prefill", "decode"):
        side: PathRun = runner.side(PathName(path))
        plain, digested = in_turns([side.run, lambda side=side: digest_pass(side)], repeats)
        found[path] = {
            "plain_s": round(plain, 3),
            "digests_s": round(digested, 3),
            "ratio": round(digested / plain, 2),
        }
    return found


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row(control) for control in TRUTH]
    right = sum(bool(each["right"]) for each in rows)
    document = {
        "command": "python ci/studies/located_defects.py",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "machine": platform.machine(),
        "right": right,
        "of": len(rows),
        "rows": rows,
        "cost": cost(args.repeats),
    }
    RESULTS.joinpath("located-defects.json").write_text(json.dumps(document, indent=1) + "\n")
    put(RESULTS / "located-defects.md", table(rows))
    print(f"{right} of {len(rows)} causes right; cost {document['cost']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
