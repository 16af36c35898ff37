"""Measure long contexts on a CPU: keys, batch and cases against time and memory.

Each point is a verification in a process of its own: its seconds of CPU are what the operating
system counted, its peak is ``VmHWM``. Writes docs/results/long-contexts.{json,md,svg}.

    python ci/studies/long_contexts.py                        # all points: hours
    python ci/studies/long_contexts.py --only decoder eager   # some subjects
    python ci/studies/long_contexts.py --most 16384           # and no longer contexts
    python ci/studies/long_contexts.py --point eager 131072 1 0 > point.json   # one point alone
    python ci/studies/long_contexts.py --add point.json       # which is put beside the others
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from long_contexts_page import EACH, LongContexts, LongPoint, name_of, page, picture, which

if TYPE_CHECKING:
    from kvparity.plan.cases import Case
    from kvparity.relations.bits_and_limits import Comparison

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs/results"
PACKAGES = ("kernels", "harness", "contracts")
KEYS = (1_024, 4_096, 16_384, 65_536, 131_072)
LAST = 4
"""Tokens generated behind a context."""
RANDOM = 16
"""Rows of a prompt that the seed draws."""
BATCHES = CASES = (1, 2, 4, 8, 16)
# Large tiles: the interpreter takes milliseconds for each, whatever its size.
ORDER = {"split": 4_096, "tile": 1_024, "block_m": 64}
LAYERS = {"layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 16, "hidden_size": 32}
WINDOW = 1_024
Document = dict[str, Any]


@dataclass(frozen=True)
class Unfinished:
    """A point that was given up, and the CPU seconds that were spent on it."""

    kind: str
    keys: int
    cpu_seconds: float


def _pair() -> Document:
    return {
        "kind": "attention",
        "prefill": "kvparity_kernels.attention:prefill",
        "decode": "kvparity_kernels.attention:decode",
        "heads": {"query": 1, "kv": 1, "dim": 64},
        "order": ORDER,
    }


def _decoder(keys: int, *, window: bool) -> Document:
    config = {
        "vocab_size": 256,
        **LAYERS,
        "intermediate_size": 32,
        "max_positions": keys,
    }
    if window:
        config |= {"sliding_window": WINDOW, "layer_types": ["sliding", "full"]}
    order = {**ORDER, "block_m": 256}
    return {"kind": "decoder", "config": config, "cpu_ops": "twin", "order": order}


def _transformers(keys: int, attention: str) -> Document:
    return {
        "kind": "transformers",
        "attention": attention,
        "config": {
            "model_type": "qwen3",
            "vocab_size": 256,
            "hidden_size": LAYERS["hidden_size"],
            "intermediate_size": 32,
            "num_hidden_layers": LAYERS["layers"],
            "num_attention_heads": LAYERS["heads"],
            "num_key_value_heads": LAYERS["kv_heads"],
            "head_dim": LAYERS["head_dim"],
            "max_position_embeddings": keys,
        },
    } | ({"order": {**ORDER, "block_m": 256}} if attention == "kvparity" else {})


def subject(kind: str, keys: int) -> Document:
    """The subject of a kind of point, with room for so many positions."""
    if kind in ("decoder", "window"):
        return _decoder(keys, window=kind == "window")
    if kind in ("sdpa", "eager"):
        return _transformers(keys, kind)
    return _pair()


def contract(kind: str, keys: int, number: int, *, whole: bool) -> Document:
    """The contract of a point: ``number`` of sequences (batch) or of workloads (cases).

    ``whole``: no rows are chosen, so all are computed.
    """
    sequences, loads = (number, 1) if kind == "batch" else (1, number)
    rows = {} if whole else {"rows": {"edges": True, "random": RANDOM}}
    check = {
        "name": "bits",
        "relation": "invariance",
        "paths": ["batched"] if kind == "batch" else ["decode"],
    }
    return {
        "version": 1,
        "name": "long",
        "subject": subject(kind, keys),
        "numerics": {"execution": ["float32"]},
        "workloads": [
            {
                "name": f"w{i}",
                "prompt_tokens": [keys - LAST] * sequences,
                "generate": LAST,
                **rows,
            }
            for i in range(loads)
        ],
        "checks": [check],
    }


def run(given: Document) -> tuple[list[str], int, int | None]:
    """All cases of a contract, without controls: outcomes, compared rows and of how many."""
    import torch

    from kvparity.core.environment import settle
    from kvparity.plan.cases import make
    from kvparity.record.path_run import Setting
    from kvparity.run.unit import run_unit
    from kvparity.subjects.registry import factory
    from kvparity_contracts.contract import Contract
    from kvparity_kernels import runtime

    model = Contract.model_validate(given)
    runtime.select("cpu")
    settle()
    built = factory(model.subject.kind)(
        model.subject, execution="float32", kv_cache="float32",
        device=torch.device("cpu"), seed=model.seed, base=ROOT,
    )  # fmt: skip
    ends: list[Comparison] = []

    def emit(case: Case, result: Comparison, *_: object) -> None:
        ends.append(result)

    for unit in make(model).units:
        run_unit(Setting(model, built), unit, tokens=None, done=frozenset(), emit=emit)
    of = [each.of for each in ends if each.of is not None]
    return (
        sorted({each.outcome for each in ends}),
        sum(each.tokens for each in ends),
        sum(of) if of else None,
    )


def point(kind: str, keys: int, number: int, *, whole: bool) -> LongPoint:
    """One point, in this process."""
    start, load = time.perf_counter(), os.getloadavg()[0]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    outcomes, rows, of = run(contract(kind, keys, number, whole=whole))
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "kind": kind, "keys": keys, "number": number, "whole": whole,
        "outcomes": outcomes, "rows": rows, "of": of,
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime - before, 1),
        "peak_mib": peak_mib(),
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        "machine": machine(),
    }  # fmt: skip


def machine() -> str:
    """What a point's numbers rest on."""
    import torch
    import triton

    from kvparity.core.environment import cpu_model

    # With it, glibc keeps what is freed: the system has no pages to clear for the next scores.
    kept = ", MALLOC_MMAP_MAX_=0" if os.environ.get("MALLOC_MMAP_MAX_") == "0" else ""
    return f"{cpu_model()}, torch {torch.__version__}, Triton {triton.__version__}{kept}"


def peak_mib() -> int:
    """MiB that this process had at its peak; ``ru_maxrss`` begins with what its parent had."""
    status = Path("/proc/self/status").read_text()
    return round(int(status.partition("VmHWM:")[2].split()[0]) / 1024)


def measure(asked: tuple[str, int, int, bool], most_s: int) -> LongPoint | Unfinished:
    """One point, in a process of its own, for at most ``most_s`` seconds."""
    kind, keys, number, whole = asked
    paths = os.pathsep.join(str(ROOT / name) for name in PACKAGES)
    own = {"TRITON_INTERPRET": "1", "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--point", kind, str(keys), str(number), str(int(whole))]
    before = _cpu_of_children()
    try:
        done = subprocess.run(
            command, env=os.environ | own, capture_output=True, text=True, check=False,
            timeout=most_s,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        print(f"{kind} {keys}: more than {most_s} s", file=sys.stderr)
        return Unfinished(kind, keys, _cpu_of_children() - before)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    print(done.stdout.strip(), file=sys.stderr)
    found: LongPoint = json.loads(done.stdout)
    return found


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def points() -> Iterator[tuple[str, int, int, bool]]:
    """Everything that is measured: (kind, keys, number, whole)."""
    for keys in (*KEYS, 1_048_576):
        yield "pair", keys, 1, False
    for kind in ("window", "decoder", "sdpa", "eager"):
        for keys in KEYS:
            yield kind, keys, 1, False
    for kind in ("pair", "decoder", "sdpa", "eager"):  # as without chosen rows
        for keys in (1_024, 4_096, 16_384):
            yield kind, keys, 1, True
    for number in BATCHES:
        yield "batch", EACH, number, False
    for number in CASES:
        yield "cases", EACH, number, False


def main() -> None:
    """Measure what is asked for, beside what was measured before, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", help="these kinds alone")
    parser.add_argument("--most", type=int, default=2**20, help="no more keys than these")
    parser.add_argument("--timeout", type=int, default=7_200, help="seconds of one point")
    parser.add_argument(
        "--point", nargs=4, metavar=("KIND", "KEYS", "NUMBER", "WHOLE"), help="print one point"
    )
    parser.add_argument("--add", nargs="+", type=Path, help="points that were printed; no others")
    options = parser.parse_args()
    if options.point:
        kind, keys, number, whole = options.point
        print(json.dumps(point(kind, int(keys), int(number), whole=whole == "1")))
        return
    sys.path[:0] = [str(ROOT / name) for name in PACKAGES]
    file = RESULTS / "long-contexts.json"
    found: LongContexts = {"command": "python ci/studies/long_contexts.py", "points": []}
    if file.is_file():
        found |= json.loads(file.read_text())
    spent = found.setdefault("unfinished", {})
    asked = [
        each for each in points()
        if each[1] <= options.most and (not options.only or each[0] in options.only)
    ]  # fmt: skip
    given: list[LongPoint] = [json.loads(each.read_text()) for each in options.add or ()]
    for new in given or (measure(each, options.timeout) for each in asked):
        if isinstance(new, Unfinished):
            spent[name_of(new.kind, new.keys)] = round(new.cpu_seconds, 1)
        else:
            spent.pop(name_of(new["kind"], new["keys"]), None)
            kept = [each for each in found["points"] if which(each) != which(new)]
            found["points"] = sorted([*kept, new], key=which)
        file.write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "long-contexts.md").write_text(page(found))
    (RESULTS / "long-contexts.svg").write_text(picture(found))


if __name__ == "__main__":
    main()
