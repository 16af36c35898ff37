"""What `kvparity drift` takes: a model side beside a bare loop, metrics, and reading.

    python ci/studies/bench_drift.py          writes docs/results/drift-cost.json

The model side and a bare loop of the same forwards run in one process, in turns; their ratio is
that of the medians. Metrics and reading are CPU seconds of one core.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from study import RESULTS, in_turns, write

TOKENS, READ, SEQUENCES = 10_000_000, 1_000_000, 24
HIDDEN, LAYERS, VOCABULARY, LENGTH = 768, 6, 8192, 256


def checkpoint(folder: Path) -> Path:
    """A seeded Llama in bfloat16."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=12,
        num_key_value_heads=4,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def model_side(repeats: int) -> dict[str, object]:
    """Scoring by a model, beside the loop that a user writes."""
    from transformers import AutoModelForCausalLM

    from kvparity.gaps.model_side import ModelSide
    from kvparity.gaps.settings import Settings
    from kvparity.rollouts import RolloutWriter, read_rollouts

    draws = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = checkpoint(Path(scratch) / "model")
        path = Path(scratch) / "r.jsonl"
        with RolloutWriter(path) as writer:
            for _ in range(SEQUENCES):
                ids = draws.integers(0, VOCABULARY, LENGTH).tolist()
                writer.write(ids[:32], ids[32:], [-1.0] * (LENGTH - 32))
        rollouts = list(read_rollouts(path))
        side = ModelSide(folder, Settings(), torch.device("cpu"))
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()

    @torch.no_grad()
    def bare() -> list[torch.Tensor]:
        found = []
        for each in rollouts:
            ids = torch.tensor([*each.prompt_ids.tolist(), *each.response_ids.tolist()])
            logits = model(input_ids=ids[None], use_cache=False).logits[0, 31:-1].float()
            found.append(logits.log_softmax(-1).gather(-1, ids[32:, None])[:, 0])
        return found

    def ours() -> list[torch.Tensor]:
        return [torch.from_numpy(values) for _, values in side.score(iter(rollouts))]

    same = all(torch.equal(a, b) for a, b in zip(bare(), ours(), strict=True))
    plain, mine = in_turns([bare, ours], repeats)
    return {
        "hidden": HIDDEN, "layers": LAYERS, "vocabulary": VOCABULARY,
        "sequences": SEQUENCES, "tokens_each": LENGTH, "repeats": repeats,
        "bare_s": round(plain, 3), "model_side_s": round(mine, 3),
        "ratio": round(mine / plain, 4), "same_bits": same,
    }  # fmt: skip


def metrics() -> dict[str, object]:
    """Of 10 million tokens, with the names of all frameworks: CPU seconds, and the peak."""
    from kvparity.rollouts.metrics import metrics as measured
    from kvparity.rollouts.names import FRAMEWORKS, named
    from kvparity.rollouts.tokens import Tokens

    draws = np.random.default_rng(0)
    rollout = np.float32(-2) * draws.standard_exponential(TOKENS, dtype=np.float32)
    trainer = draws.standard_normal(TOKENS, dtype=np.float32)
    trainer *= np.float32(0.01)
    trainer += rollout
    np.minimum(trainer, 0, out=trainer)
    starts = np.arange(0, TOKENS + 1, 1000, dtype=np.int64)
    places = np.tile(np.arange(1000, dtype=np.int32), TOKENS // 1000)
    names = tuple(map(str, range(TOKENS // 1000)))
    tokens = Tokens(names, starts, rollout, trainer, places, places)
    begin = time.process_time()
    measured(tokens)
    first, peak = time.process_time(), _peak_mib()
    for each in FRAMEWORKS:
        named(each, tokens)
    return {
        "tokens": TOKENS,
        "metrics_s": round(first - begin, 2),
        "metrics_peak_mib": peak,
        "all_names_s": round(time.process_time() - first, 2),
        "all_names_peak_mib": _peak_mib(),
    }


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def reading() -> dict[str, object]:
    """A million tokens of JSON Lines: CPU seconds."""
    from kvparity.rollouts import RolloutWriter, read_rollouts

    draws = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "r.jsonl"
        with RolloutWriter(path) as writer:
            for _ in range(READ // 1000):
                ids = draws.integers(0, 50_000, 1100).tolist()
                values = -draws.exponential(2, 1000).astype(np.float32)
                writer.write(ids[:100], ids[100:], values.tolist())
        begin = time.process_time()
        count = sum(each.mask.size for each in read_rollouts(path))
        return {"tokens": count, "read_s": round(time.process_time() - begin, 2)}


PARTS: dict[str, Callable[[], dict[str, object]]] = {"metrics": metrics, "reading": reading}


def apart(name: str) -> dict[str, object]:
    """A part in a process of its own, so that a peak is its own."""
    command = [sys.executable, __file__, "--part", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(PARTS[args.part]()))
        return
    torch.set_num_threads(1)
    found = {
        "command": "python ci/studies/bench_drift.py",
        "torch": torch.__version__,
        "model_side": model_side(args.repeats),
        **{name: apart(name) for name in PARTS},
    }
    write(RESULTS / "drift-cost.json", found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
