"""A contract of a pair of functions, written to a file and verified."""

from __future__ import annotations

from pathlib import Path

from kvparity.cli.main import main

PAIRS = Path(__file__).parent / "data" / "pairs.py"
CONTRACT = """\
version: 1
name: pair
subject:
  kind: attention
  prefill: {prefill}
  decode: {decode}
  heads: {{query: 2, kv: 1, dim: 4}}
numerics: {{execution: float32}}
workloads:
  - {{name: short, prompt_tokens: [2, 5], generate: 3}}
  - {{name: longer, prompt_tokens: [11], generate: 3}}
checks:
  - {{name: same bits, relation: invariance, reference: prefill, paths: [decode, batched]}}
  - {{name: right, relation: accuracy, limits: {{max_abs: 1.0e-5}}}}
controls: [stale-slot, narrow-cache, wrong-input]
"""


def write(folder: Path, *, prefill: str = "", decode: str = "") -> Path:
    path = folder / "pair.yaml"
    text = CONTRACT.format(
        prefill=prefill or f"{PAIRS}:prefill", decode=decode or f"{PAIRS}:decode"
    )
    path.write_text(text)
    return path


def verify(contract: Path, folder: Path, *more: str) -> int:
    return main(["verify", str(contract), "--run-dir", str(folder), "--jobs", "1", *more])
