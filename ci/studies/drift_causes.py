"""Known causes of a gap, planted one by one: the numbers, and what ``--explain`` ranks first.

    python ci/studies/drift_causes.py [--compile]     writes docs/results/drift-causes.*

The causes are those of tests/harness/gaps/causes.py: plain scripts of transformers on a seeded
model of two layers.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from study import RESULTS, ROOT, put

sys.path.insert(0, str(ROOT / "tests/harness"))

from gaps import causes, test_causes, tiny

from kvparity.gaps.patterns import patterns
from kvparity.gaps.settings import Settings


def row(cause: causes.Cause, given: causes.Given) -> dict[str, object]:
    """What was found of one cause."""
    scores = test_causes.scorer(given)
    found = test_causes.explained(cause, given, scores)
    both = zip(causes.trainer(given), causes.recorded(cause, given), strict=True)
    apart = np.concatenate([a.double().numpy() - np.float64(b.logprobs) for a, b in both])
    values = scores(Settings(), cause.temperature, cause.top_p)
    named = patterns(test_causes.tokens(cause, given, values))
    assert found.base.numbers is not None
    stale = str(given.stale)
    return {
        "cause": cause.name,
        "mean_abs_d": found.base.numbers.mean_abs_d,
        "truth": float(np.abs(apart).mean()),
        "k3": found.base.numbers.k3,
        "first": found.singles[0].factors[0].replace(stale, causes.STALE),
        "wanted": cause.factor,
        "removed": found.removed(found.singles[0]),
        "equal_bits": found.smallest is not None,
        "second": found.singles[1].factors[0].replace(stale, causes.STALE),
        "second_removed": found.removed(found.singles[1]),
        "patterns": [each.name for each in named],
    }


def table(rows: list[dict[str, object]]) -> str:
    """The rows as a table."""
    lines = [
        "| cause | mean abs(d) | plain script | ranked first | k3 removed | equal bits | second, "
        "k3 removed | pattern |",
        "|---|--:|--:|---|--:|---|---|---|",
    ]
    for each in rows:
        hit = each["first"] == each["wanted"]
        first = f"{each['first']}" if hit else f"**{each['first']}**, not {each['wanted']}"
        lines.append(
            f"| {each['cause']} | {each['mean_abs_d']:.3g} | {each['truth']:.3g} | {first} | "
            f"{each['removed']:.0%} | {'yes' if each['equal_bits'] else 'no'} | {each['second']}, "
            f"{each['second_removed']:.0%} | {', '.join(map(str, each['patterns']))} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--compile", action="store_true", help="torch.compile, too: two minutes")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        (base / "of mixture").mkdir()
        dense = causes.made(tiny.checkpoint(base / "model", dropout=0.3), base)
        made = causes.made(tiny.mixture(base / "mixture"), base / "of mixture")
        mixture = causes.routed(made)
        tried = [each for each in causes.CAUSES if args.compile or not each.compiled]
        rows = [row(each, mixture if each.mixture else dense) for each in tried]
    about = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "command": "python ci/studies/drift_causes.py" + " --compile" * args.compile,
    }
    text = json.dumps({"about": about, "rows": rows}, indent=1)
    (RESULTS / "drift-causes.json").write_text(text + "\n")
    put(RESULTS / "drift-causes.md", table(rows))


if __name__ == "__main__":
    main()
