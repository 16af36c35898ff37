"""Planted defects of every subject, located; and what a pass of digests takes.

    python ci/studies/located_defects.py          writes docs/results/located-defects.*

Each control that changes bits between paths is planted in one of each kind of subject that shows
it: a fixture of the matrix of defects, or a contract below. What is true of it is its own row in
the contracts' table of controls. The cost is that of a transformers model of hidden size 1024,
with and without digests, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

from study import RESULTS, in_turns, put, write

os.environ.setdefault("TRITON_INTERPRET", "1")

import torch
import transformers
from located_places import clean_places, places

from kvparity.births.digests import digest_pass
from kvparity.labs.defect_matrix.locating import cause_of, row
from kvparity.labs.defect_matrix.results import LocatedControl
from kvparity.record.path_run import PathRun, Setting
from kvparity.run.unit import Runner
from kvparity.subjects.hf.subject import build
from kvparity_contracts.contract import Contract
from kvparity_contracts.controls import CONTROLS, Control
from kvparity_contracts.paths import PathName

KINDS = ("decoder", "attention", "transformers")


def rows(control: Control) -> list[LocatedControl]:
    """What was found of one planted defect, by kind of subject."""
    found = []
    for kind in KINDS:
        if kind in control.subjects:
            shown = (
                each for each in places(control, kind) if each[1].differing or each[1].complete
            )
            first = next(shown, None)
            if first is None:
                print(f"{control.name}: no place of {kind} shows it", file=sys.stderr)
            else:
                found.append(row(control, *first))
    return found


def right(own: list[LocatedControl]) -> bool:
    """Whether cause and first operation are right in every kind of subject."""
    return bool(own) and all(
        each["cause_right"] and each["first_right"] is not False for each in own
    )


def table(found: list[LocatedControl], clean: dict[str, str]) -> str:
    """The rows as a table; what is wrong is bold, with what is true behind it."""
    lines = [
        "| planted | in | first born in | account | cause |",
        "| --- | --- | --- | --- | --- |",
    ]
    for each in found:
        cause = each["cause"]
        if not each["cause_right"]:
            cause = f"**{cause}** ({each['truth']})"
        born = "the pair" if each["first_right"] is None else each["born"] or each["part"] or "–"
        if each["first_right"] is False:
            born = f"**{born}** ({each['truth_part']})"
        account = "complete" if each["complete"] else "–"
        lines.append(f"| {each['control']} | {each['habitat']} | {born} | {account} | {cause} |")
    for place, cause in clean.items():
        lines.append(f"| nothing | {place} | – | – | {cause} |")
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
    parser.add_argument("--kept-cost", action="store_true", help="keep the cost of the last time")
    parser.add_argument("--only", nargs="+", metavar="CONTROL", help="print these rows alone")
    args = parser.parse_args()
    torch.set_num_threads(1)
    clean = {name: cause_of(found).kind for name, found in clean_places()}
    page = RESULTS / "located-defects.json"
    own = {
        control.name: rows(control)
        for control in CONTROLS.values()
        if control.cause and set(control.subjects) & set(KINDS)
        if not args.only or control.name in args.only
    }
    whole = [each for found in own.values() for each in found]
    if args.only:
        print(table(whole, {}))
        return 0
    document = {
        "command": "python ci/studies/located_defects.py",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "machine": platform.machine(),
        "right": sum(map(right, own.values())),
        "of": len(own),
        "rows": whole,
        "clean": clean,
        "cost": json.loads(page.read_text())["cost"] if args.kept_cost else cost(args.repeats),
    }
    write(page, document)
    put(RESULTS / "located-defects.md", table(whole, clean))
    print(f"{document['right']} of {len(own)} right; cost {document['cost']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
