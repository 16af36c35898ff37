"""Measure the memory that a verification takes, on a CPU; writes docs/results/memory.{json,md}.

Each point is a process of its own, and its peak is what the operating system counted
(``ru_maxrss``). ``rows``: a subject that computes logits in blocks of 8 rows, over vocabularies and
numbers of tokens: what the harness adds must follow neither their product nor the tokens.
``context``: the project's own kernels, in the interpreter, over a long context.

    python ci/studies/bench_memory.py                  # all points: some minutes
    python ci/studies/bench_memory.py --only rows
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from memory_page import BLOCK, GENERATE, Found, Point, page
from study import RESULTS, ROOT, write

if TYPE_CHECKING:
    from kvparity.plan.cases import Case
    from kvparity.relations.bits_and_limits import Comparison
    from kvparity.subjects.base import Subject
    from kvparity_contracts import Contract

VOCABULARIES = (1_024, 32_768, 262_144)
TOKENS = (16, 128, 1_024)
CONTEXTS = (4_096, 32_768)
PACKAGES = ("kernels", "harness", "contracts")


def _subject(vocab: int, tokens: int) -> Subject:
    """Logits in blocks, from positions alone; nothing is kept between calls."""
    import torch

    from kvparity.plan.schedule import Layout, Member, Plan, Step

    class MeasuredSession:
        def __init__(self) -> None:
            self.counts: Counter[str] = Counter()

        def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[torch.Tensor]:
            column = torch.arange(vocab, dtype=torch.float32)
            for span in step:
                self.counts["attention.decode" if span.decode else "attention.prefill"] += 1
                for first in range(span.rows.start, span.rows.stop, BLOCK):
                    rows = range(first, min(first + BLOCK, span.rows.stop))
                    yield torch.stack([torch.sin(column * (p + 1)) for p in rows])

        def observed(self) -> Counter[str]:
            return self.counts

        def cache(self) -> None:
            return None

    class Blocks:
        def __init__(self) -> None:
            self.vocab, self.max_positions = vocab, tokens + 8
            self.device = torch.device("cpu")

        def unsupported(self, plan: Plan) -> None:
            return None

        def session(self, members: Sequence[Member], layout: Layout) -> MeasuredSession:
            return MeasuredSession()

        def values(
            self, rows: torch.Tensor, targets: torch.Tensor, temperatures: Sequence[float]
        ) -> torch.Tensor:
            columns = [
                torch.log_softmax(rows / t, -1).gather(1, targets[:, None]) for t in temperatures
            ]
            return torch.cat(columns, 1)

        def oracle(self, member: Member, ids: Sequence[int], rows: Sequence[int]) -> torch.Tensor:
            raise NotImplementedError

        def describe(self, ran: Counter[str] | None = None) -> Mapping[str, object]:
            return {}

    return Blocks()


def _contract(
    subject: Mapping[str, object], prompt: int, generate: int, *more: Mapping[str, object]
) -> Contract:
    from kvparity_contracts.contract import Contract

    bits = {"name": "bits", "relation": "invariance", "paths": ["decode"]}
    return Contract.model_validate(
        {
            "version": 1,
            "name": "memory",
            "subject": subject,
            "numerics": {"execution": "float32"},
            "workloads": [{"name": "w", "prompt_tokens": [prompt], "generate": generate}],
            "checks": [bits, *more],
            "controls": "all",
        }
    )


def _run(contract: Contract, subject: Subject) -> list[str]:
    """All cases of the contract over the subject; their outcomes."""
    from kvparity.core.environment import settle
    from kvparity.plan.cases import make
    from kvparity.record.path_run import Setting
    from kvparity.run.unit import run_unit

    settle()
    outcomes: list[str] = []

    def emit(case: Case, result: Comparison, *_: object) -> None:
        outcomes.append(f"{case.relation}: {result.outcome}")

    for unit in make(contract).units:
        run_unit(Setting(contract, subject), unit, tokens=None, done=frozenset(), emit=emit)
    return outcomes


def rows_point(vocab: int, tokens: int) -> list[str]:
    """Roll out, rescore and compare ``tokens`` tokens of a vocabulary."""
    # The contract's own subject is not looked at: the one above takes its place.
    contract = _contract({"kind": "decoder", "preset": "qwen3-0.6b"}, 4, tokens)
    return _run(contract, _subject(vocab, tokens))


def context_point(context: int) -> list[str]:
    """Decode against prefill and float64, and what the cache holds, at the end of a context."""
    import torch

    from kvparity.subjects.pair.subject import build
    from kvparity_contracts.subjects import Attention

    model = {
        "kind": "attention",
        "prefill": "kvparity_kernels.attention:prefill",
        "decode": "kvparity_kernels.attention:decode",
        "heads": {"query": 1, "kv": 1, "dim": 64},
        # Large tiles: the interpreter takes milliseconds for each, whatever its size.
        "order": {"split": 4096, "tile": 512, "block_m": 512},
    }
    near = {"name": "near", "relation": "accuracy", "limits": {"max_abs": 1e-5}}
    held = {"name": "held", "relation": "cache", "paths": ["decode"]}
    contract = _contract(model, context - GENERATE, GENERATE, near, held)
    subject = build(
        Attention.model_validate(model),
        execution="float32",
        kv_cache="float32",
        device=torch.device("cpu"),
        seed=0,
        base=ROOT,
    )
    return _run(contract, subject)


def point(kind: str, numbers: Sequence[int]) -> Point:
    """One point, in this process."""
    start = time.perf_counter()
    outcomes = (rows_point if kind == "rows" else context_point)(*numbers)
    return {
        "outcomes": outcomes,
        "seconds": round(time.perf_counter() - start, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def measure(kind: str, *numbers: int) -> Point:
    """One point, in a process of its own."""
    paths = os.pathsep.join(str(ROOT / name) for name in PACKAGES)
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": paths}
    command = [sys.executable, __file__, "--point", kind, *map(str, numbers)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    print(done.stdout.strip(), file=sys.stderr)
    found: Point = json.loads(done.stdout)
    return found


def all_points(only: str | None) -> Found:
    """Every point of both kinds, with what they were measured on."""
    import torch

    from kvparity.core.environment import cpu_model

    found: Found = {
        "machine": {
            "cpu": cpu_model(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "imports_mib": measure("rows", 16, 1)["peak_mib"],
    }
    if only in (None, "rows"):
        found["rows"] = [
            {"vocab": vocab, "tokens": tokens, **measure("rows", vocab, tokens)}
            for vocab in VOCABULARIES
            for tokens in TOKENS
        ]
    if only in (None, "context"):
        found["context"] = [
            {"context": context, **measure("context", context)} for context in CONTEXTS
        ]
    return found


def main() -> None:
    """Measure what is asked for and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["rows", "context"], help="these points alone")
    parser.add_argument("--point", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        kind, *numbers = options.point
        print(json.dumps(point(kind, [int(each) for each in numbers])))
        return
    sys.path[:0] = [str(ROOT / name) for name in PACKAGES]
    file = RESULTS / "memory.json"
    before: Found = json.loads(file.read_text()) if file.is_file() else {}
    found: Found = {**before, **all_points(options.only)}
    write(file, found)
    (RESULTS / "memory.md").write_text(page(found))


if __name__ == "__main__":
    main()
