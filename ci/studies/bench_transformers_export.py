"""Do exported and compiled programs of transformers models give what the models give?

Tiny seeded models of many families, each exported as its users export it, decoded across a sliding
window of 8, against the model's own decode over a static cache and against one forward pass. Writes
docs/results/transformers-export.json; ``--only FAMILY ...`` prints rows and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
for package in ("contracts", "kernels", "harness"):
    sys.path.insert(0, str(ROOT / package))

from kvparity_kernels import runtime  # noqa: E402 - the path comes first

runtime.select("cpu")

import transformers  # noqa: E402

from kvparity.plan.paths import build as plan  # noqa: E402
from kvparity.plan.workload import Prompts, text_tokens  # noqa: E402
from kvparity.record.execute import run  # noqa: E402
from kvparity.relations.bits_and_limits import invariance  # noqa: E402
from kvparity.subjects.base import SubjectError, UnsupportedError  # noqa: E402
from kvparity.subjects.export.hf import programs_of  # noqa: E402
from kvparity.subjects.hf.subject import TransformersSubject, build  # noqa: E402
from kvparity_contracts.paths import PathName  # noqa: E402
from kvparity_contracts.subjects import Transformers  # noqa: E402

SHAPE = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "max_position_embeddings": 512,
}  # fmt: skip
LOCAL = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
LAYERS_OF_4 = {
    "num_hidden_layers": 4, "sliding_window": 8, "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 512,
}  # fmt: skip
FAMILIES: dict[str, dict[str, object]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "phi3": {"sliding_window": 8, "pad_token_id": 0},
    "mistral": {"sliding_window": 8},
    "gemma2": {"sliding_window": 8, "query_pre_attn_scalar": 16},
    "gemma3_text": {**LOCAL, "query_pre_attn_scalar": 16},
    "cohere2": {**LOCAL, "eos_token_id": 1},
    "gpt_oss": {**LOCAL, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gemma3n_text": {
        **LAYERS_OF_4, "laurel_rank": 8, "altup_num_inputs": 2,
        "activation_sparsity_pattern": [0.0] * 4,
    },
    "gemma4_text": {**LAYERS_OF_4, "global_head_dim": 16},
}  # fmt: skip
NO_HEAD_DIM = ("phi3", "qwen2")
COMPILED = ("llama", "mistral")  # inductor takes a minute for each on a busy CPU


def subject(family: str, attention: str) -> TransformersSubject:
    """A tiny seeded model of a family."""
    shape = {k: v for k, v in SHAPE.items() if not (k == "head_dim" and family in NO_HEAD_DIM)}
    config = {"model_type": family, **shape, **FAMILIES[family]}
    return build(
        Transformers(kind="transformers", attention=attention, cache="static", config=config),
        execution="float32",
        kv_cache="float32",
        device=torch.device("cpu"),
        seed=0,
        base=ROOT,
    )


def rows(family: str, attention: str, paths: list[str]) -> list[dict[str, object]]:
    """One row for each path: what ran, and how far it is from decode and from prefill."""
    which = subject(family, attention)
    lengths = (1, 17)
    own = [list(text_tokens(0, f"s{i}", n + 8)) for i, n in enumerate(lengths)]
    made = tuple(tuple(t[:n]) for t, n in zip(own, lengths, strict=True))
    prompts = Prompts("export", ("s0", "s1"), made, 8)
    records = {}
    found = []
    for path in ("prefill", "decode", *paths):
        row: dict[str, object] = {"family": family, "attention": attention, "path": path}
        started = time.perf_counter()
        try:
            records[path] = run(
                which, plan(PathName(path), prompts, seed=0), own, temperatures=[1.0]
            )
        except (SubjectError, UnsupportedError) as error:
            found.append(row | {"error": str(error).splitlines()[0]})
            continue
        row["seconds"] = round(time.perf_counter() - started, 1)
        row["observed"] = dict(records[path].observed)
        for other in ("decode", "prefill"):
            if other in records and other != path:
                result = invariance(records[other], records[path], column=0)
                row[f"against_{other}"] = {
                    "tokens": result.tokens,
                    "differing_tokens": result.differing_tokens,
                    "max_abs_dlogp": result.max_abs_dlogp,
                }
        if path == "compiled":
            compiled = programs_of(which).compiled
            row["graphs"] = 0 if compiled is None else compiled.runs["graphs"]
        if path not in ("prefill", "decode"):
            found.append(row)
    return found


def main() -> None:
    """Run the families and write or print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=FAMILIES, default=None)
    parser.add_argument("--attention", nargs="*", default=["eager", "sdpa"])
    parser.add_argument("--compiled", action="store_true", help="torch.compile too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    everything = []
    for family in options.only or FAMILIES:
        for attention in options.attention:
            if attention == "sdpa" and family in ("gemma2", "gpt_oss"):
                continue  # transformers has no sdpa for them
            paths = ["exported"]
            if attention == "eager" and family in COMPILED and options.compiled:
                paths.append("compiled")
            for row in rows(family, attention, paths):
                everything.append(row)
                print(json.dumps(row), flush=True)
    if options.only is None:
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        text = json.dumps({**versions, "dtype": "float32", "rows": everything}, indent=1)
        (ROOT / "docs/results/transformers-export.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
