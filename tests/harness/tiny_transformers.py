"""A tiny seeded transformers subject and the schedules that its tests run."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import DynamicCache
from transformers_families import FAMILIES

from kvparity.core.relied.transformers import MODEL_TYPES
from kvparity.plan.schedule import Layout, Member, Span, Step
from kvparity.subjects.hf.subject import build
from kvparity_contracts.subjects import Transformers

BACKENDS = ("sdpa", "eager", "kvparity")
CONFIG = {
    "model_type": "qwen3",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "eos_token_id": 7,
}
ORDER = {"split": 32, "tile": 16, "block_m": 16}


def needs(*model_types: str) -> None:
    """Skip a test whose models the installed transformers does not have yet."""
    missing = [kind for kind in model_types if kind not in MODEL_TYPES.get()]
    if not hasattr(DynamicCache, "has_previous_state"):  # transformers 4: a cache of its own
        missing += [kind for kind in model_types if kind == "qwen3_next"]
    if missing:
        pytest.skip(f"transformers {transformers.__version__} has no {' and no '.join(missing)}")


@cache
def tiny(attention: str, cache: str = "dynamic", execution: str = "bfloat16") -> Any:
    contract = Transformers(
        kind="transformers",
        config=CONFIG,
        attention=attention,
        cache=cache,
        order=ORDER if attention == "kvparity" else None,
    )
    return build(
        contract,
        execution=execution,
        kv_cache=execution,
        device=torch.device("cpu"),
        seed=3,
        base=Path(),
    )


@cache
def family(name: str, attention: str, cache: str = "dynamic", execution: str = "float32") -> Any:
    """A tiny model of one family of ``transformers_families``, if this transformers has it."""
    needs(FAMILIES[name]["model_type"])
    return build(
        Transformers(
            kind="transformers",
            config=FAMILIES[name],
            attention=attention,
            cache=cache,
            order=ORDER if attention == "kvparity" else None,
        ),
        execution=execution,
        kv_cache=execution,
        device=torch.device("cpu"),
        seed=3,
        base=Path(),
    )


def tokens(length: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(length * 1000 + seed)
    return torch.randint(0, 512, (length,), generator=generator).tolist()


def rows(subject: Any, lengths: list[int], steps: list[Step], layout: Layout) -> list[Tensor]:
    """Per sequence its wanted rows, in order of position."""
    members = [Member(f"m{i}", n) for i, n in enumerate(lengths)]
    session = subject.session(members, layout)
    found: list[list[Tensor]] = [[] for _ in lengths]
    for step in steps:
        ids = [tokens(lengths[s.sequence])[s.start : s.stop] for s in step]
        out = torch.cat(
            [
                torch.empty(0, subject.vocab),
                *session.forward(step, ids),
            ]
        )
        for span in step:
            found[span.sequence].append(out[: len(span.rows)])
            out = out[len(span.rows) :]
        assert len(out) == 0
    return [torch.cat(parts) for parts in found]


def one_by_one(length: int, chunk: int, shift: int = 0) -> list[Step]:
    """A single sequence in chunks, every row wanted."""
    cuts = [*range(0, length, chunk), length]
    return [
        (Span(0, a, b, rows_from=a, decode=chunk == 1 and a > 0, position_shift=shift),)
        for a, b in pairwise(cuts)
    ]


def rectangle(prompts: list[int], new: int) -> list[Step]:
    steps: list[Step] = [tuple(Span(i, 0, p, rows_from=0) for i, p in enumerate(prompts))]
    for n in range(new):
        steps.append(
            tuple(
                Span(i, p + n, p + n + 1, rows_from=p + n, decode=True)
                for i, p in enumerate(prompts)
            )
        )
    return steps


def same_bits(a: Tensor, b: Tensor) -> bool:
    return (
        a.shape == b.shape
        and a.dtype == b.dtype == torch.float32
        and bool((a.view(torch.int32) == b.view(torch.int32)).all())
    )
