"""What lets a defect show in a contract, and paths that show nothing: both sides of each rule."""

from __future__ import annotations

from typing import Any

import pytest
from one_key import CONFIG, Doc, changed

from kvparity_contracts.checks import Accuracy, Invariance
from kvparity_contracts.contract import Contract
from kvparity_contracts.features import Feature, has
from kvparity_contracts.idling import idle, runs, why_idle
from kvparity_contracts.paths import MOST, PathError, PathName, suggest
from kvparity_contracts.stores import lossy, parse
from kvparity_contracts.workloads import Workload

WINDOW = CONFIG | {"sliding_window": 8}
TYPES = WINDOW | {"layers": 2}
LAYERS = "subject.config"
W = "workloads.0"


def heads(query: int, kv: int) -> Doc:
    return {"subject.heads": {"query": query, "kv": kv, "dim": 16}}


def wide(values: int) -> Doc:
    """Values so wide, keys of 16."""
    plain = {"subject.prefill": "m:f", "subject.decode": "m:f", "subject.order": None}
    return plain | {"subject.heads": {"query": 4, "kv": 2, "dim": 16, "v_dim": values}}


AHEAD: Doc = wide(16) | {"subject.causal": False, "checks": [
    {"name": "a", "relation": "invariance", "paths": ["permuted"]},
]}  # fmt: skip


def prompts(*each: list[int]) -> Doc:
    return {f"{W}.prompt_tokens": None, f"{W}.prompts": list(each)}


def path(text: str) -> Doc:
    return {"checks.0.paths": ["decode", text]}


HEAD = list(range(32))
Row = tuple[Feature, str, Doc, bool]
FEATURES: list[Row] = [
    ("order", "decoder", {}, True),
    ("order", "decoder", {"subject.attention": "sdpa", "subject.order": None}, False),
    ("order", "model", {}, False),
    ("order", "model", {"subject.attention": "kvparity"}, True),
    ("taken-order", "pair", {}, True),
    ("taken-order", "pair", {"subject.order": None}, False),
    ("taken-order", "decoder", {"subject.order": None}, True),
    ("layers", "decoder", {}, False),
    ("layers", "decoder", {LAYERS: CONFIG | {"layers": 2}}, True),
    ("layers", "decoder", {LAYERS: None, "subject.preset": "tiny"}, True),
    ("ascii", "decoder", {LAYERS: CONFIG | {"vocab_size": 64}}, True),
    ("ascii", "decoder", {LAYERS: CONFIG | {"vocab_size": 63}}, False),
    ("ascii", "model", {}, True),
    ("float32", "decoder", {"numerics.execution": ["float32", "bfloat16"]}, True),
    ("float32", "decoder", {"numerics.execution": ["bfloat16", "float32"]}, False),
    ("float32", "decoder", {"numerics.kv_cache": "bfloat16"}, True),
    ("instruction", "decoder", {"numerics.execution": "bfloat16"}, False),
    ("instruction", "decoder", {"numerics.device": "sm_90"}, True),
    ("sixteen-bit", "decoder", {}, False),
    ("sixteen-bit", "decoder", {"numerics.execution": "bfloat16"}, True),
    ("instruction", "decoder", {"numerics": {"execution": ["float16", "float32"],
                                             "device": "sm_80"}}, True),
    ("window", "decoder", {}, False),
    ("window", "decoder", {LAYERS: WINDOW}, True),
    ("window", "pair", {"subject.window": 8}, True),
    ("no-ring", "decoder", {LAYERS: WINDOW}, True),
    ("no-ring", "decoder", {LAYERS: WINDOW, "subject.cache": {"ring": True}}, False),
    ("no-ring", "model", {}, True),
    ("ring", "decoder", {LAYERS: WINDOW}, False),
    ("ring", "decoder", {LAYERS: WINDOW, "subject.cache": {"ring": True}}, True),
    ("ring", "model", {}, False),
    ("numbers", "decoder", {"numerics.kv_cache": ["float16", "int8(16)"]}, True),
    ("numbers", "decoder", {"numerics.kv_cache": ["int8(16)", "float16"]}, False),
    ("codes", "decoder", {"numerics.kv_cache": ["float16", "int8(16)"]}, False),
    ("codes", "decoder", {"numerics.kv_cache": ["int8(16)", "float16"]}, True),
    ("fp8", "decoder", {"numerics.kv_cache": ["int8(16)", "fp8_e5m2"]}, False),
    ("fp8", "decoder", {"numerics.kv_cache": ["fp8_e5m2", "int8(16)"]}, True),
    ("shared-prompt", "decoder", prompts([*HEAD, 1], [*HEAD, 2]), True),
    ("shared-prompt", "decoder", prompts([*HEAD, 1]), False),
    ("shared-prompt", "decoder", prompts([*HEAD, 1], HEAD), False),
    ("shared-prompt", "decoder", prompts([*HEAD[:31], 9, 1], [*HEAD, 2]), False),
    ("shared-prompt", "decoder", {}, False),
    ("shared-prompt", "decoder", prompts([*HEAD, 1], [*HEAD, 2])
     | {"workloads.+": {"name": "v", "prompt_tokens": [3], "generate": 2}}, True),
    ("shared-prompt", "decoder", prompts([*HEAD, 1], [*HEAD, 2])
     | {"subject.attention": "sdpa", "subject.order": None}, False),
    ("shared-prompt", "decoder", {f"{W}.prompt_tokens": None,
                                  f"{W}.texts": ["a" * 32 + "b", "a" * 32 + "cd"]}, True),
    ("full-layer", "decoder", {}, True),
    ("full-layer", "decoder", {LAYERS: WINDOW}, False),
    ("full-layer", "decoder", {LAYERS: TYPES | {"layer_types": ["sliding", "full"]}}, True),
    ("full-layer", "decoder", {LAYERS: TYPES | {"layer_types": ["sliding", "sliding"]}}, False),
    ("full-layer", "pair", {"subject.window": 8}, False),
    ("full-layer", "pair", {"subject.window": 8, "subject.order": None}, True),
    ("strided", "pair", {}, True),
    ("strided", "pair", {"subject.inputs": "contiguous"}, False),
    ("strided", "decoder", {}, False),
    ("empties", "pair", path("batched"), True),
    ("empties", "pair", path("mixed"), True),
    ("empties", "pair", path("permuted"), True),
    ("empties", "pair", path("batched(3)"), False),
    ("empties", "pair", path("uniform"), False),
    ("empties", "pair", path("batched") | {"subject.empty": "never"}, False),
    ("empties", "decoder", path("batched"), False),
    ("wide-batch", "pair", path("batched(17)"), True),
    ("wide-batch", "pair", path("batched(16)"), False),
    ("wide-batch", "pair", path("batched"), False),
    ("wide-batch", "pair", path("chunked(17)"), False),
    ("softcap", "pair", {}, False),
    ("softcap", "pair", {"subject.softcap": 5.0}, True),
    ("sinks", "decoder", {}, False),
    ("sinks", "decoder", {LAYERS: CONFIG | {"attention_sinks": True}}, True),
    ("sinks", "decoder", {LAYERS: None, "subject.preset": "tiny"}, False),
    ("sinks", "pair", {}, False),
    ("sinks", "pair", {"subject.sinks": [0, 1]}, True),
    ("bias", "pair", {}, False),
    ("bias", "pair", {"subject.bias": {"kind": "alibi"}}, True),
    ("bias", "decoder", {}, False),
    ("bias-table", "pair", {"subject.bias": {"kind": "alibi"}}, False),
    ("bias-table", "pair", {"subject.bias": {"kind": "relative", "distances": 2}}, True),
    ("narrow-values", "pair", {}, False),
    ("narrow-values", "pair", wide(15), True),
    ("narrow-values", "pair", wide(16), False),
    ("narrow-values", "decoder", {}, False),
    ("both-ways", "pair", {}, False),
    ("both-ways", "pair", AHEAD, True),
    ("both-ways", "decoder", {}, False),
    ("window-ahead", "pair", AHEAD, False),
    ("window-ahead", "pair", AHEAD | {"subject.window_size": [3, 0]}, True),
    ("window-ahead", "pair", AHEAD | {"subject.window_size": [3, -1]}, False),
    ("window-ahead", "pair", AHEAD | {"subject.window": 2}, True),
    ("window-ahead", "pair", {"subject.window": 2}, False),
    ("window-ahead", "decoder", {}, False),
    ("cache-views", "pair", {}, False),
    ("cache-views", "pair", {"subject.layout": "interleaved"}, True),
    ("cache-views", "pair", heads(2, 1) | {"subject.layout": "interleaved"}, True),
    ("cache-views", "pair", heads(4, 2) | {"subject.layout": "head-major"}, True),
    ("cache-views", "pair", heads(4, 2) | {"subject.layout": "head-slot"}, True),
    ("cache-views", "pair", heads(2, 1) | {"subject.layout": "head-major"}, False),
    ("cache-views", "decoder", {}, False),
    ("cross", "pair", AHEAD | {"subject.cross": [3, 10]}, True),
    ("cross", "pair", AHEAD | {"subject.cross": [3, 9]}, False),
    ("cross", "pair", AHEAD, False),
    ("cross", "decoder", {}, False),
    ("window", "pair", AHEAD | {"subject.window_size": [0, -1]}, True),
    ("window", "pair", AHEAD | {"subject.window_size": [-1, 0]}, False),
    ("groups", "pair", heads(8, 2), True),
    ("groups", "pair", heads(2, 2), False),
    ("groups", "pair", heads(8, 1), False),
    ("groups", "decoder", {}, False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("feature", "base", "changes", "there"),
    [pytest.param(*row, id=f"{i}-{row[0]}") for i, row in enumerate(FEATURES)],
)
def test_a_feature_is_there_or_not(feature: Feature, base: str, changes: Doc, there: bool) -> None:
    assert has(Contract.model_validate(changed(base, changes)), feature) is there


def workload(*lengths: int, generate: int = 4) -> Workload:
    entry = {"name": "w", "prompt_tokens": list(lengths), "generate": generate}
    return Workload.model_validate(entry)


FIRST = "the one token comes from the prompt's own step"
WHY: list[tuple[str, Workload, bool, str]] = [
    # path, workload, whether it is idle, why it shows nothing
    ("chunked(13)", workload(3, 9), True, ""),
    ("chunked(12)", workload(3, 9), False, ""),
    ("streamed(9)", workload(3, 9), True, "every prompt fits into one chunk of 9"),
    ("streamed(8)", workload(3, 9), False, ""),
    ("prefix(9)", workload(3, 9), True, "no prompt goes on behind its first 9 tokens"),
    ("prefix(8)", workload(3, 9), False, ""),
    ("prefix-paged(9)", workload(9), True, "no prompt goes on behind its first 9 tokens"),
    ("prefix-paged(8)", workload(9), False, ""),
    ("paged(100)", workload(9), False, ""),
    ("batched(100)", workload(9), False, ""),
    ("decode", workload(9), False, ""),
    ("decode", workload(9, generate=1), False, FIRST),
    ("generate", workload(9, generate=1), False, FIRST),
    ("mixed", workload(9, generate=1), False, FIRST),
    ("exported", workload(9, generate=1), False, FIRST),
    ("compiled", workload(9, generate=1), False, FIRST),
    ("prefill", workload(9, generate=1), False, ""),
    ("permuted", workload(9, generate=1), False, ""),
    ("compiled", workload(9, generate=2), False, ""),
]


@pytest.mark.parametrize(
    ("text", "load", "still", "why"),
    [pytest.param(*r, id=f"{i}-{r[0]}") for i, r in enumerate(WHY)],
)
def test_a_path_that_shows_nothing(text: str, load: Workload, still: bool, why: str) -> None:
    name = PathName.parse(text)
    assert idle(name, load) is still
    assert (why_idle(name, load) or "").startswith(why)
    assert (why_idle(name, load) is None) == (why == "")
    # By itself it shows something where it computes anything; beside prefill, where that differs.
    alone = Accuracy.model_validate(
        {"name": "a", "relation": "accuracy", "limits": {"max_abs_dlogp": 1.0}, "paths": [text]}
    )
    assert runs(name, alone, load) is (why == "")
    if text != "prefill":
        check = {"name": "b", "relation": "invariance", "paths": [text]}
        assert runs(name, Invariance.model_validate(check), load) is (why == "" and not still)


@pytest.mark.parametrize("kind", ["chunked", "paged", "streamed", "prefix", "batched"])
def test_the_argument_of_a_path_has_a_least_and_a_most(kind: Any) -> None:
    for number in (1, MOST):
        assert PathName.parse(f"{kind}({number})") == PathName(kind, number)
        assert str(PathName(kind, number)) == f"{kind}({number})"
    for number in (0, MOST + 1):
        with pytest.raises(PathError, match=f"from 1 to {MOST}"):
            PathName(kind, number)
    for text in (f"{kind}({MOST + 1})", f"{kind}({'9' * 400})", f"{kind}(0)", f"{kind}(-1)"):
        with pytest.raises(PathError, match=f"from 1 to {MOST}"):
            PathName.parse(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("chunkd(7)", "chunked(7)"),
        ("Chunked(007)", "chunked(7)"),
        ("chunked7", "chunked(7)"),
        ("chunked", "chunked(64)"),
        (f"paged({MOST})", f"paged({MOST})"),
        (f"paged({MOST + 1})", "paged(16)"),
        ("paged(999999999)", "paged(16)"),
        ("decode(3)", "decode"),
        ("batchd(5)", "batched(5)"),
        ("batched()", "batched"),
        ("batched5", "batched"),
        ("padded_left", "padded-left"),
        ("nothing like it", ""),
    ],
)
def test_what_was_meant_is_suggested(text: str, meant: str) -> None:
    assert suggest(text) == meant
    if meant:
        assert str(PathName.parse(meant)) == meant


def test_stores_say_what_they_hold() -> None:
    texts = ["float32", "fp8_e4m3", "fp8_e5m2(head)", "int8(32)", "int4(1)", "bfloat16", "float16"]
    assert lossy(texts) == ["fp8_e4m3", "fp8_e5m2(head)", "int8(32)", "int4(1)"]
    told = [(each.name, each.scope, each.group, str(each)) for each in map(parse, texts[:5])]
    assert told == [
        ("float32", "", 0, "float32"),
        ("fp8_e4m3", "tensor", 0, "fp8_e4m3(tensor)"),
        ("fp8_e5m2", "head", 0, "fp8_e5m2(head)"),
        ("int8", "", 32, "int8(32)"),
        ("int4", "", 1, "int4(1)"),
    ]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("float64", "float16"), ("fp8-e4m3", "fp8_e4m3"), ("float32(3)", "float32"),
        ("fp8_e4m3(32)", "fp8_e4m3"), ("int8", "int8(32)"), ("int8(0)", "int8(32)"),
        ("int8(head)", "int8(32)"), ("INT4(64)", "int4(64)"), ("int8(07)", "int8(7)"),
    ],
)  # fmt: skip
def test_a_store_that_is_none_is_refused_with_one_that_is(text: str, meant: str) -> None:
    whole = changed("decoder", {"numerics.kv_cache": ["float32", text]})
    with pytest.raises(ValueError, match="did you mean") as caught:
        Contract.model_validate(whole)
    assert f"(did you mean {meant}?)" in str(caught.value)
