"""What the harness adds to a transformers model: its sessions beside a bare loop of the same calls.

Both run in one process, in turns, on a tiny random model, where the overhead weighs most; prints
one JSON document with the ratio of the medians per path. Give ``--hidden`` and ``--layers`` for a
larger model.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from study import in_turns

from kvparity.core.relied.transformers import cache_argument
from kvparity.plan.schedule import Layout, Member, Span
from kvparity.subjects.hf.subject import TransformersSubject, build
from kvparity_contracts.subjects import Transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def subject(attention: str, hidden: int, layers: int) -> TransformersSubject:
    """A seeded qwen3 in bfloat16 on the CPU."""
    config = {
        "model_type": "qwen3",
        "vocab_size": 512,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": hidden // 4,
    }
    return build(
        Transformers(kind="transformers", config=config, attention=attention),
        execution="bfloat16",
        kv_cache="bfloat16",
        device=torch.device("cpu"),
        seed=0,
        base=Path(),
    )


@torch.inference_mode()
def bare(model: PreTrainedModel, ids: list[int], cuts: list[int]) -> torch.Tensor:
    """The loop that a user writes."""
    from transformers import DynamicCache

    cache, rows, start = DynamicCache(config=model.config), [], 0
    name = cache_argument(model)
    for stop in cuts:
        step = torch.tensor([ids[start:stop]])
        rows.append(model(step, **{name: cache}, use_cache=True).logits[0].float())
        start = stop
    return torch.cat(rows)


@torch.inference_mode()
def harness(subject: TransformersSubject, ids: list[int], cuts: list[int]) -> torch.Tensor:
    """The same calls through a session."""
    session, rows, start = subject.session([Member("m", len(ids))], Layout()), [], 0
    for stop in cuts:
        rows.extend(session.forward((Span(0, start, stop, rows_from=start),), [ids[start:stop]]))
        start = stop
    return torch.cat(rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "eager"])
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    model = subject(options.attention, options.hidden, options.layers)
    ids = torch.randint(0, 512, (options.tokens,)).tolist()
    found: dict[str, object] = {**vars(options), "torch": torch.__version__}
    for name, chunk in (("prefill", options.tokens), ("chunked(16)", 16), ("decode", 1)):
        cuts = [*range(chunk, options.tokens, chunk), options.tokens]
        same = bare(model.model, ids, cuts).equal(harness(model, ids, cuts))
        plain, ours = in_turns(
            [lambda c=cuts: bare(model.model, ids, c), lambda c=cuts: harness(model, ids, c)],
            options.repeats,
        )
        found[name] = {
            "bare_ms": round(plain * 1e3, 3),
            "harness_ms": round(ours * 1e3, 3),
            "ratio": round(ours / plain, 4),
            "overhead_us_per_call": round((ours - plain) / len(cuts) * 1e6, 1),
            "same_bits": same,
        }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
