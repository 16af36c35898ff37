"""Models of transformers and pairs of kernels are traced like the reference decoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import toy
from tiny_transformers import family

from kvparity.record.path_run import PathRun, Setting
from kvparity.relations.trace.tracing import Trace, trace_side
from kvparity.subjects.base import Subject, UnsupportedError
from kvparity.subjects.registry import factory
from kvparity_contracts.paths import PathName
from kvparity_contracts.subjects import Attention

CONTRACT = toy.contract(
    workloads=[{"name": "one", "prompt_tokens": [3, 14], "generate": 4, "pad": ["left"]}]
)
PAIR = {
    "kind": "attention",
    "prefill": "kvparity_kernels.attention:prefill",
    "decode": "kvparity_kernels.attention:decode",
    "heads": {"query": 4, "kv": 2, "dim": 16},
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def traced(subject: Subject, path: str) -> Trace:
    own = Setting(CONTRACT, subject)
    plans = own.plans("one")
    prompts = plans.prompts
    tokens = [[(5 * i + 3 * n) % 120 for n in range(prompts.length(i))] for i in range(2)]
    return trace_side(PathRun(own, subject, plans, PathName.parse(path), tokens))


def silent(trace: Trace) -> list[str]:
    return [name for name, count in trace.judgement.said.items() if not count]


@pytest.mark.parametrize(
    ("name", "attention", "cache", "layers"),
    [
        ("llama", "sdpa", "dynamic", [(0, 17), (1, 17)]),
        ("mistral", "eager", "static", [(0, 8), (1, 8)]),
        ("gemma3n", "sdpa", "dynamic", [(0, 8), (1, 17), (0, 8), (1, 17)]),
        ("gemma2", "eager", "dynamic", [(0, 8), (1, 17)]),
        ("gpt_oss", "eager", "static", [(0, 8), (1, 17)]),
        ("mistral", "kvparity", "dynamic", [(0, 8), (1, 8)]),
    ],
)
def test_models_of_transformers_hold(
    name: str, attention: str, cache: str, layers: list[tuple[int, int]]
) -> None:
    for path in ("decode", "streamed(5)"):
        trace = traced(family(name, attention, cache), path)
        assert trace.judgement.outcome == "holds", trace.judgement.reason
        last = trace.lines[-1].layers
        assert [(seen.donors[0], seen.keys) for seen in last] == layers
        # Only kernels of ours return a log-sum-exp.
        assert silent(trace) in ([], ["weights sum to one"])


def test_a_model_that_attends_in_chunks_is_refused_in_words() -> None:
    with pytest.raises(UnsupportedError, match="llama4_text model attends in chunks"):
        traced(family("llama4", "eager"), "decode")


@pytest.mark.parametrize("order", [None, {"split": 32, "tile": 16, "block_m": 16}])
@pytest.mark.parametrize("path", ["prefill", "decode", "chunked(4)", "mixed", "uncached"])
def test_a_pair_of_kernels_holds(path: str, order: dict[str, int] | None) -> None:
    model = Attention.model_validate(PAIR | ({} if order is None else {"order": order}))
    subject = factory("attention")(
        model, execution="bfloat16", kv_cache="bfloat16", device=torch.device("cpu"), seed=1,
        base=Path(),
    )  # fmt: skip
    trace = traced(subject, path)
    assert trace.judgement.outcome == "holds", trace.judgement.reason
    assert not silent(trace)
    assert trace.lines[0].told in (None, trace.lines[0].place)
