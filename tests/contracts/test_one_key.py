"""Contracts on both sides of each rule: what differs in one key, and all that is said of it."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from one_key import BASES, BITS, CLOSE, CONFIG, Doc, changed, said

W = "workloads.0.prompt_tokens"
SHORT = {"name": "short", "prompt_tokens": [9], "generate": 4}
TEXTS = {"name": "texts", "texts": ["hello"], "generate": 4}
PATHS = "checks.0.paths"
LIMITS = "checks.1.limits"
WINDOW = CONFIG | {"sliding_window": 8}
OWN_PREFILL = "kvparity_kernels.attention:prefill"
OWN_DECODE = "kvparity_kernels.attention:decode"


def order(*keys: int) -> Doc:
    return {"name": "o", "relation": "order", "keys": list(keys)}


def seen(prompt: int, generate: int) -> Doc:
    """One prompt: its decoded tokens see from prompt + 1 to prompt + generate - 1 keys."""
    return {W: [3, prompt], "workloads.0.generate": generate}


AUDIT = {"name": "a", "relation": "audit"}
OF_TILES = "warning workloads: no sequence is longer than one tile of"
OF_SPLITS = "warning workloads: no sequence is longer than one split of"
OF_EDGES = "warning workloads: no decoded token sees"
OF_FIT = "warning checks[0].paths"

ROWS: list[tuple[str, Doc, list[str]]] = [
    # positions and tokens
    ("decoder", {"subject.config": CONFIG | {"max_positions": 70}}, []),
    ("decoder", {"subject.config": CONFIG | {"max_positions": 69}},
     ["error workloads[0].prompt_tokens[1]: found 62 prompt tokens, 70 with the 8 generated"]),
    ("pair", {W: [62, 2**24 - 8]}, []),
    ("pair", {W: [62, 2**24 - 7]}, ["error workloads[0].prompt_tokens[1]: found 16777209 prompt"]),
    ("decoder", {W: None, "workloads.0.prompts": [[255] * 62]}, []),
    ("decoder", {W: None, "workloads.0.prompts": [[255] * 62, [0, 256, 1]]},
     ["error workloads[0].prompts[1]: found the token id 256, ids below 256"]),
    ("decoder", {W: None, "workloads.0.texts": ["x" * 62]}, []),
    ("model", {W: None, "workloads.0.prompts": [[70_000] * 62]}, []),
    ("decoder", {"subject.config": CONFIG | {"vocab_size": 126}}, []),
    ("decoder", {"subject.config": CONFIG | {"vocab_size": 125}},
     ["warning workloads[0].prompt_tokens: prompts are bytes of text, up to 125"]),
    ("decoder", {"subject.config": CONFIG | {"vocab_size": 100}, W: None,
                 "workloads.0.prompts": [[99] * 62]}, []),
    # stores
    ("decoder", {"numerics.kv_cache": "int8(16)"}, []),
    ("decoder", {"numerics.kv_cache": ["int8(16)", "int8(32)"]},
     ["error numerics.kv_cache[1]: found 'int8(32)', but 32 does not divide the head dimension"]),
    ("decoder", {"numerics.kv_cache": "fp8_e4m3"}, []),
    ("checkpoint", {"numerics.kv_cache": "int8(32)"}, []),
    ("decoder", {"subject.attention": "sdpa", "subject.order": None, W: [3, 62, 63],
                 "numerics.kv_cache": "float16"}, []),
    ("decoder", {"subject.attention": "sdpa", "subject.order": None, W: [3, 62, 63],
                 "numerics.kv_cache": "fp8_e5m2"},
     ["error numerics.kv_cache: found a cache in fp8_e5m2(tensor) beside attention: sdpa"]),
    # chunks and prefixes
    ("decoder", {f"{PATHS}.+": "chunked(69)"}, []),
    ("decoder", {f"{PATHS}.+": "chunked(70)"},
     ["error checks[0].paths[2]: found 'chunked(70)', but no sequence is longer than 70 tokens, so "
      "it is the same as prefill, a chunk shorter than 70"]),
    ("decoder", {f"{PATHS}.+": "streamed(61)"}, []),
    ("decoder", {f"{PATHS}.+": "streamed(62)"},
     ["error checks[0].paths[2]: found 'streamed(62)', but no prompt is longer than 62 tokens, so "
      "it is the same as decode, a chunk shorter than 62"]),
    ("decoder", {"workloads.+": SHORT, f"{PATHS}.+": "streamed(62)"},
     ["error checks[0].paths[2]: found 'streamed(62)', but no prompt is longer than 62 tokens, so "
      "it is the same as decode, a chunk shorter than 62"]),
    ("decoder", {f"{PATHS}.+": "prefix(61)"}, []),
    ("decoder", {f"{PATHS}.+": "prefix-paged(62)"},
     ["error checks[0].paths[2]: found 'prefix-paged(62)', but no prompt is longer than 62 tokens, "
      "so none goes on behind the prefix, a prefix shorter than 62"]),
    ("decoder", {"workloads.+": SHORT, "checks.0": order(65), "checks.1": CLOSE | {"name": "a"},
                 "checks.+": BITS | {"paths": ["decode", "chunked(13)"]}},
     ["warning checks[2].paths[1]: every sequence of short fits into one chunk"]),
    ("decoder", {f"{PATHS}.+": "paged(500)"}, []),
    ("decoder", {f"{PATHS}.+": "batched(500)"}, []),
    ("decoder", {"workloads.+": SHORT, f"{PATHS}.+": "chunked(13)"},
     [f"{OF_FIT}[2]: every sequence of short fits into one chunk, where 'chunked(13)' is"]),
    ("decoder", {"workloads.+": SHORT, f"{PATHS}.+": "chunked(12)"}, []),
    ("decoder", {"workloads.+": SHORT, "checks.0.workloads": ["short", "w"], f"{PATHS}.0": "decode",
                 f"{PATHS}.1": "streamed(9)"},
     [f"{OF_FIT}[1]: every prompt of short fits into one chunk, where 'streamed(9)' is the same"]),
    ("decoder", {"workloads.+": SHORT, f"{PATHS}.+": "prefix(9)"},
     [f"{OF_FIT}[2]: no prompt of short is longer than the prefix of 'prefix(9)'"]),
    ("decoder", {"checks.0.workloads": ["nope"]},
     ["error checks[0].workloads[0]: found the unknown workload 'nope', one of w"]),
    ("checkpoint", {"workloads.+": TEXTS, f"{PATHS}.+": "chunked(80)"},
     [f"{OF_FIT}[2]: every sequence of w fits into one chunk, where 'chunked(80)' is the same"]),
    ("model", {"workloads.+": TEXTS, f"{PATHS}.+": "chunked(80)"},
     ["error checks[0].paths[2]: found 'chunked(80)', but no sequence is longer than 71 tokens"]),
    ("model", {f"{PATHS}.+": "prefix-paged(80)", f"{PATHS}.0": "decode", f"{PATHS}.1": "paged(16)"},
     ["error checks[0].paths[1]: found 'paged(16)', but the caches of transformers have no pages",
      "error checks[0].paths[2]: found 'prefix-paged(80)', but the caches of transformers have"]),
    ("model", {f"{PATHS}.1": "paged(16)", f"{PATHS}.+": "streamed(80)"},
     ["error checks[0].paths[1]: found 'paged(16)', but the caches of transformers have no pages",
      "error checks[0].paths[2]: found 'streamed(80)', but no prompt is longer than 62 tokens"]),
    ("model", {f"{PATHS}.1": "prefix-paged(80)", f"{PATHS}.+": "streamed(80)"},
     ["error checks[0].paths[1]: found 'prefix-paged(80)', but the caches of transformers have",
      "error checks[0].paths[2]: found 'streamed(80)', but no prompt is longer than 62 tokens"]),
    # pads
    ("decoder", {"workloads.0.pad": ["left"], f"{PATHS}.+": "padded"}, []),
    ("decoder", {"workloads.+": SHORT | {"pad": ["left"]}, "checks.0.workloads": ["w"],
                 f"{PATHS}.+": "padded", "checks.1.paths": ["padded-left"]},
     ["error checks[0].paths[2]: found 'padded', but no workload of this check has 'pad'"]),
    ("model", {f"{PATHS}.1": "batched", f"{PATHS}.+": "padded"},
     ["error checks[0].paths[1]: found 'batched', but a transformers model takes one sequence",
      "error checks[0].paths[2]: found 'padded', but no workload of this check has 'pad'"]),
    # what a subject can do
    ("pair", {f"{PATHS}.+": "exported"},
     ["error checks[0].paths[2]: found 'exported', but a pair of kernels is called as it is"]),
    ("decoder", {f"{PATHS}.+": "compiled"}, []),
    ("decoder", {"subject.operations": "torch", f"{PATHS}.+": "compiled"},
     ["error checks[0].paths[2]: found 'compiled', but a traced program computes with the kernels "
      "of this project; here are attention: fixed-order, operations: torch"]),
    ("checkpoint", {f"{PATHS}.+": "compiled"}, []),
    ("checkpoint", {f"{PATHS}.+": "exported", "subject.cache": "dynamic"},
     ["error checks[0].paths[2]: found 'exported', but a traced program needs a cache that does"]),
    ("checkpoint", {f"{PATHS}.+": "exported", "subject.attention": "flex_attention"},
     ["error checks[0].paths[2]: found 'exported', but attention: flex_attention looks at its"]),
    ("checkpoint", {f"{PATHS}.+": "exported", "subject.invariant": True}, []),
    ("checkpoint", {f"{PATHS}.+": "compiled", "subject.invariant": True},
     ["error checks[0].paths[2]: found 'compiled', but the compiler fuses what invariant: true"]),
    ("model", {f"{PATHS}.+": "padded-left", "workloads.0.pad": ["left"]}, []),
    ("model", {"checks.+": {"name": "t", "relation": "trace"}}, []),
    ("model", {"checks.+": {"name": "t", "relation": "trace", "paths": ["decode", "padded-right"]},
               "workloads.0.pad": ["right"]},
     ["error checks[1].paths[1]: found 'padded-right', but a trace check cannot look into a"]),
    ("decoder", {"checks.+": {"name": "t", "relation": "trace", "paths": ["padded-right"]},
                 "workloads.0.pad": ["right"]}, []),
    ("model", {"subject.attention": "flex_attention"}, []),
    ("model", {"subject.attention": "flex_attention",
               "checks.+": {"name": "h", "relation": "cache", "paths": ["decode"]}}, []),
    ("model", {"subject.attention": "flex_attention",
               "checks.+": {"name": "t", "relation": "trace"}},
     ["error checks[1].paths: found 'decode', but what flex_attention sees cannot be reported"]),
    # limits
    ("decoder", {LIMITS: {"float32": {"max_abs_dlogp": 0.1}}}, []),
    ("decoder", {LIMITS: {"float32": {"max_abs_dlogp": 0.1}, "float16": {"max_abs_dlogp": 0.1}}},
     ["error checks[1].limits.float16: found limits for float16, only formats of"]),
    ("decoder", {LIMITS: {"float32": {"max_abs_dlogp": 0.1}},
                 "numerics.execution": ["float32", "bfloat16"]},
     ["error checks[1].limits: limits for bfloat16 are missing"]),
    ("decoder", {LIMITS: {"max_abs": 0.1}},
     ["error checks[1].limits.max_abs: found the limit 'max_abs', max_abs_dlogp or approx_kl0 or"]),
    ("pair", {LIMITS: {"float32": {"max_abs_dlogp": 0.1}}},
     ["error checks[1].limits.float32.max_abs_dlogp: found the limit 'max_abs_dlogp', max_abs"]),
    ("decoder", {LIMITS: {"max_abs_dlogp": 50, "approx_kl0": 1e30}},
     ["warning checks[1].limits.approx_kl0: cannot fail"]),
    ("decoder", {LIMITS: {"max_abs_dlogp": 50.1, "approx_kl0": 1e30}}, []),
    ("decoder", {LIMITS: {"max_abs_dlogp": 2.0, "approx_kl0": math.expm1(2.0) - 2.0}},
     ["warning checks[1].limits.approx_kl0: cannot fail: max_abs_dlogp 2 already keeps it below"]),
    ("decoder", {LIMITS: {"max_abs_dlogp": 2.0,
                          "approx_kl0": math.nextafter(math.expm1(2.0) - 2.0, 0)}}, []),
    ("decoder", {LIMITS: {"max_abs_dlogp": math.log(1.2), "clipfrac0": 0.5}},
     ["warning checks[1].limits.clipfrac0: cannot fail: max_abs_dlogp 0.182322 already keeps it"]),
    ("decoder", {LIMITS: {"max_abs_dlogp": 0.1824, "clipfrac0": 0.5}}, []),
    ("decoder", {LIMITS: {"clipfrac0": 0.999}}, []),
    ("decoder", {LIMITS: {"clipfrac0": 1.0, "max_abs_dlogp": 0.1}},
     ["warning checks[1].limits.clipfrac0: cannot fail: a share is at most 1"]),
    # order checks and audits
    ("decoder", {"checks.+": order(300, 65)}, []),
    ("decoder", {"checks.+": order(301, 65)}, ["error checks[2].keys[0]: found 301 keys, at most"]),
    ("pair", {"checks.+": order(3, 2**20)}, []),
    ("decoder", {"checks.+": order(16, 33)}, []),
    ("decoder", {"checks.+": order(16, 32)},
     ["warning checks[2].keys: no number of keys is above one tile of 32"]),
    ("decoder", {"checks.+": order(16), "checks.1": order(32) | {"name": "p"}, "checks.0": BITS},
     ["warning checks: there is no accuracy check",
      "warning checks[1].keys: no number of keys is above one tile of 32",
      "warning checks[2].keys: no number of keys is above one tile of 32"]),
    ("pair", {"subject.window": 3, f"{PATHS}.+": "chunked(5)", "checks.+": order(34)}, []),
    ("pair", {"subject.window": 2, f"{PATHS}.+": "chunked(5)", "checks.+": order(33)},
     ["error checks[2].relation: found 'order' beside a window of 2 keys"]),
    ("decoder", {"subject.config": WINDOW, "checks.+": order(60, 39)}, []),
    ("decoder", {"subject.config": WINDOW, "checks.+": order(60, 40)},
     ["warning checks[2].keys: at no number of keys does the edge of a tile of 32 lie among the "
      "last 8,"]),
    ("decoder", {"subject.config": WINDOW, "checks.+": order(33)}, []),
    ("decoder", {"subject.config": WINDOW, "checks.+": order(63, 64)},
     ["warning checks[2].keys: at no number of keys does the edge of a tile of 32 lie among"]),
    ("decoder", {"subject.config": CONFIG | {"sliding_window": 40}, "checks.+": order(33)}, []),
    ("model", {"checks.+": order(65)},
     ["error checks[1].relation: found 'order', but the attention of a transformers model cannot"]),
    ("decoder", {"checks.+": order(65) | {"execution": ["float32"]}}, []),
    ("decoder", {"checks.+": order(65) | {"execution": ["float32", "float16"]}},
     ["error checks[2].execution[1]: found 'float16', formats of numerics.execution (float32)"]),
    ("pair", {"subject.prefill": OWN_PREFILL, "subject.decode": OWN_DECODE, "checks.+": AUDIT}, []),
    ("pair", {"subject.decode": OWN_DECODE, "checks.+": AUDIT},
     ["error checks[2].relation: found 'audit', but kvparity_kernels.attention:decode is no"]),
    ("decoder", {"checks.+": AUDIT}, []),
    ("decoder", {"checks.+": AUDIT | {"decode": {"block_m": 16, "num_warps": 4}}}, []),
    ("decoder", {"checks.+": AUDIT | {"decode": {"block_m": 64, "num_warps": 1}}}, []),
    ("decoder", {"checks.+": AUDIT | {"decode": {"block_m": 64, "num_warps": 4}}},
     ["error checks[2].decode: found the rows and warps of the order, which prefill has, too"]),
    ("decoder", {"subject.attention": "sdpa", "subject.order": None, W: [3, 62, 63],
                 "checks.+": AUDIT},
     ["error checks[2].relation: found 'audit', but it cannot compile attention: sdpa"]),
    # controls that cannot be planted
    ("decoder", {"subject.attention": "sdpa", "subject.order": None, W: [3, 62, 63],
                 "controls": ["stale-slot", "split-by-batch"]},
     ["error controls[1]: 'split-by-batch' plants another order, but attention: sdpa takes none"]),
    ("decoder", {"controls": ["stale-slot", "split-by-batch"]}, []),
    ("pair", {"controls": ["split-by-batch", "retokenised"]},
     ["error controls[1]: 'retokenised' cannot be planted in a subject of kind attention"]),
    # a pair has no tokens
    ("pair", {"numerics.temperatures": [1.0]}, []),
    ("pair", {"numerics.temperatures": [0.7]}, ["error numerics.temperatures: found temperatures"]),
    ("pair", {"workloads.+": {"name": "p", "prompts": [[3]], "generate": 2}},
     ["error workloads[1].prompts: found 'prompts', but a pair of attention kernels has no"]),
    # relations
    ("decoder", {"checks.1": order(65)},
     ["warning checks: there is no accuracy check: consistently wrong numbers would pass"]),
    ("decoder", {"checks.0": order(65)},
     ["warning checks: there is no invariance check, so no bits are compared"]),
    ("model", {"checks.0": {"name": "t", "relation": "trace"}},
     ["warning checks: there is no invariance check, so no bits are compared"]),
    # edges of tiles and splits, which only invariance checks reach
    ("decoder", seen(30, 2), [f"{OF_TILES} 32 keys (the longest has 32)"]),
    ("decoder", seen(30, 3), [f"{OF_SPLITS} 64 keys (the longest has 33)"]),
    ("decoder", seen(31, 33), [f"{OF_SPLITS} 64 keys (the longest has 64)"]),
    ("decoder", seen(31, 34), []),
    ("model", seen(60, 4), [f"{OF_TILES} 64 keys (the longest has 64)"]),
    ("model", seen(60, 5), []),
    ("decoder", seen(62, 3),
     [f"{OF_EDGES} one key of its last tile of 32 keys, so"]),
    ("decoder", seen(64, 6),
     [f"{OF_EDGES} a whole number of tiles of 32 keys, so"]),
    ("decoder", seen(65, 6),
     [f"{OF_EDGES} a whole number of tiles or one key of its last tile of 32 keys, so"]),
    ("decoder", seen(63, 3), []),
    ("decoder", seen(65, 6) | {PATHS: ["decode"]},
     [f"{OF_EDGES} a whole number of tiles or one key of its last tile of 32 keys, so"]),
    ("decoder", seen(65, 6) | {PATHS: ["chunked(4)"]}, []),
    ("decoder", seen(65, 6) | {"checks.0": CLOSE | {"name": "first"}, "checks.1": BITS},
     [f"{OF_EDGES} a whole number of tiles or one key of its last tile of 32 keys, so"]),
    ("decoder", {"checks.0.paths": ["chunked(4)"]}, []),  # nothing is decoded at all
    ("decoder", {"workloads.+": SHORT, "checks.0.workloads": ["short"]},
     [f"{OF_TILES} 32 keys (the longest has 13)"]),
    # what no check uses
    ("decoder", {"workloads.+": SHORT, "checks.0.workloads": ["w"]}, []),
    ("decoder", {"workloads.+": SHORT, "checks.0.workloads": ["w"], "checks.1.workloads": ["w"]},
     ["warning workloads[1].name: no check uses the workload 'short'"]),
    ("decoder", {"workloads.+": SHORT | {"generate": 1}, "checks.0.workloads": ["w"]}, []),
    ("decoder", {"workloads.+": SHORT | {"generate": 1}, "checks.0.workloads": ["w"],
                 "checks.1.paths": ["decode"]},
     ["warning workloads[1].generate: the one generated token comes from the prompt's own step"]),
    ("decoder", {"workloads.+": SHORT | {"generate": 2}, "checks.0.workloads": ["w"],
                 "checks.1.paths": ["decode"]}, []),
    ("decoder", {"workloads.0.pad": ["left"]},
     ["warning workloads[0].pad: no check of this workload has the path 'padded' or"]),
    # heads and windows
    ("pair", {"subject.heads": {"query": 4, "kv": 2, "dim": 16}},
     ["warning subject.heads: 4 query heads are 2 for each of 2 KV heads"]),
    ("pair", {"subject.heads": {"query": 1, "kv": 1, "dim": 16}}, []),
    ("pair", {"subject.window": 69}, []),
    ("pair", {"subject.window": 69, f"{PATHS}.1": "chunked(9)"},
     ["warning subject.window: no step has 2 to 8 rows behind a longer cache"]),
    ("pair", {"subject.window": 69, f"{PATHS}.1": "chunked(9)", "workloads.+": SHORT},
     ["warning subject.window: no step has 2 to 8 rows behind a longer cache"]),
    ("pair", {"subject.window": 70, f"{PATHS}.1": "chunked(9)"}, []),
]  # fmt: skip


@pytest.mark.parametrize("base", BASES)
def test_nothing_is_said_of_a_right_contract(tmp_path: Path, base: str) -> None:
    assert said(changed(base, {}), tmp_path) == []


@pytest.mark.parametrize(
    ("base", "changes", "expected"),
    [pytest.param(*row, id=f"{i}-{row[0]}") for i, row in enumerate(ROWS)],
)
def test_what_one_key_changes_is_all_that_is_said(
    tmp_path: Path, base: str, changes: dict[str, Any], expected: list[str]
) -> None:
    found = said(changed(base, changes), tmp_path)
    assert len(found) == len(expected), "\n".join(found)
    for line, words in zip(found, expected, strict=True):
        assert line.startswith(words)


def test_an_edge_that_is_advised_is_enough(tmp_path: Path) -> None:
    (told,) = said(changed("decoder", seen(65, 6)), tmp_path)
    prompt = re.search(r"a prompt of (\d+) tokens that generates 3", told)
    assert prompt
    assert said(changed("decoder", seen(int(prompt[1]), 3)), tmp_path) == []
