"""Small contracts that can show controls: shapes of tests, every path and every relation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from kvparity_contracts.contract import Contract
from kvparity_contracts.controls import Control
from kvparity_contracts.features import has
from kvparity_contracts.json_types import JsonObject, JsonValue
from kvparity_contracts.planning import possible

ORDER = {"split": 32, "tile": 16, "block_m": 16}
"""Edges at 16 and 32 keys, so that short sequences cross them."""
SHARED_HEAD = list(range(40, 62))
"""22 tokens with which two prompts begin: more than a tile."""

_SHAPE: dict[str, JsonValue] = {
    "vocab_size": 256, "hidden_size": 32, "intermediate_size": 32, "layers": 2, "heads": 2,
    "kv_heads": 1, "head_dim": 16, "qk_norm": True, "tie_embeddings": True, "max_positions": 256,
}  # fmt: skip
_WINDOW: dict[str, JsonValue] = {"sliding_window": 12, "layer_types": ["sliding", "full"]}
_EDGE: dict[str, JsonValue] = {
    "name": "edge",
    "prompt_tokens": [30],
    "generate": 6,
    "pad": ["left"],
}
_PAIR: dict[str, JsonValue] = {
    "name": "pair",
    "prompt_tokens": [5, 40],
    "generate": 4,
    "pad": ["left"],
}
_SHARED: dict[str, JsonValue] = {
    "name": "shared", "prompts": [[*SHARED_HEAD, 1, 2, 3], [*SHARED_HEAD, 9, 8]], "generate": 4,
}  # fmt: skip
_KERNELS = "kvparity_kernels.attention"
_ALL_WORKLOADS = (_EDGE, _PAIR, _SHARED)


@dataclass(frozen=True)
class FixtureContract:
    """A small contract, and the controls that it is for.

    ``wants``: those that need one of these features (empty: those that need none). ``only``: those
    of these names (empty: any). ``paths``: of a pair that can run no others, and is looked at by
    bits and limits alone (empty: any).
    """

    name: str
    about: str
    subject: JsonObject
    store: str = "float32"
    workloads: tuple[JsonObject, ...] = _ALL_WORKLOADS
    wants: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    @property
    def contract(self) -> Contract:
        """Its contract."""
        return _contract(self.name)


def _decoder(**more: JsonValue) -> JsonObject:
    cache_keys: dict[str, JsonValue] = {"cache": more.pop("cache")} if "cache" in more else {}
    return {"kind": "decoder", "config": _SHAPE | more, "order": ORDER, **cache_keys}


def _plain(v_dim: int = 16, **more: JsonValue) -> JsonObject:
    name = "kvparity.labs.defect_matrix.plain_pair"
    heads: JsonObject = {"query": 4, "kv": 2, "dim": 16, "v_dim": v_dim}
    pair: JsonObject = {"prefill": f"{name}:prefill", "decode": f"{name}:decode", "heads": heads}
    return {"kind": "attention", **pair, **more}


_ALL = (
    FixtureContract("plain", "two layers of full attention", _decoder()),
    FixtureContract(
        "window", "a sliding layer (12 keys) before a full one", _decoder(**_WINDOW),
        workloads=(_EDGE, _PAIR), wants=("window",),
    ),
    FixtureContract(
        "ring", "the same, the sliding layer in a ring",
        _decoder(**_WINDOW, cache={"ring": True}), workloads=(_EDGE, _PAIR),
        wants=("window", "ring"),
    ),
    FixtureContract("fp8", "a cache in fp8_e4m3", _decoder(), store="fp8_e4m3",
                    workloads=(_EDGE, _PAIR), wants=("codes", "fp8")),
    FixtureContract("int8", "a cache in int8, groups of 16", _decoder(), store="int8(16)",
                    workloads=(_EDGE, _PAIR), wants=("codes",)),
    FixtureContract(
        "shared-layers", "a last layer that reads the cache of the one before",
        _decoder(layers=3, kv_shared_layers=1), workloads=(_EDGE,), only=("wrong-donor",),
    ),
    FixtureContract(
        "pair", "this project's attention kernels alone",
        {
            "kind": "attention", "prefill": f"{_KERNELS}:prefill", "decode": f"{_KERNELS}:decode",
            "heads": {"query": 2, "kv": 1, "dim": 16}, "order": ORDER,
        },
        workloads=({**_EDGE, "pad": []}, {**_PAIR, "pad": []}),
    ),
    FixtureContract(
        "masked-pair", "the same head-slot, with groups of heads, a window of 12 and a softcap",
        {
            "kind": "attention", "prefill": f"{_KERNELS}:prefill", "decode": f"{_KERNELS}:decode",
            "heads": {"query": 6, "kv": 2, "dim": 16}, "order": ORDER, "window": 12, "softcap": 4.0,
            "layout": "head-slot",
        },
        workloads=({**_EDGE, "pad": []},), wants=("window", "softcap", "groups", "cache-views"),
    ),
    FixtureContract(
        "paged-pair", "the same over pages of 8 slots, with the writer of its cache",
        {
            "kind": "attention", "prefill": f"{_KERNELS}:prefill", "decode": f"{_KERNELS}:decode",
            "heads": {"query": 2, "kv": 1, "dim": 16}, "order": ORDER, "page": 8,
            "append": f"{_KERNELS}:append", "out": "given",
        },
        workloads=({**_EDGE, "pad": []},), wants=("pages", "append", "out"),
    ),
    FixtureContract(
        "biased-pair", "a pair in plain torch with a bias of scores and values of half a width",
        _plain(bias={"kind": "relative", "distances": 6}, v_dim=8),
        workloads=({**_EDGE, "pad": []},), wants=("bias", "bias-table", "narrow-values"),
    ),
    FixtureContract(
        "encoder-pair", "the same pair, whose rows see 12 keys before and 2 behind their own",
        _plain(causal=False, window_size=[12, 2]), workloads=({**_PAIR, "pad": []},),
        wants=("both-ways", "window-ahead"), paths=("permuted", "uncached"),
    ),
    FixtureContract(
        "cross-pair", "the same pair, whose rows see all keys of an encoder",
        _plain(causal=False, cross=[3, 40]), workloads=({**_PAIR, "pad": []},), wants=("cross",),
        paths=("decode", "batched", "mixed", "permuted"),
    ),
    FixtureContract(
        "sinks", "two layers of full attention with sinks", _decoder(attention_sinks=True),
        workloads=(_EDGE,), wants=("sinks",),
    ),
)  # fmt: skip
FIXTURES = {each.name: each for each in _ALL}

_PATHS = [
    "decode", "chunked(4)", "chunked(16)", "batched", "permuted", "mixed", "streamed(4)",
    "verify(3)",
]  # fmt: skip
_OF_PAIRS = ["batched(17)", "far"]
_OF_DECODERS = ["paged(16)", "reset", "prefix(8)", "exported"]


@cache
def _contract(name: str) -> Contract:
    fixture = FIXTURES[name]
    decoder = fixture.subject["kind"] == "decoder"
    paths = [*_PATHS, *_OF_DECODERS, "padded"] if decoder else [*_PATHS, *_OF_PAIRS]
    near = ["prefill", *(each for each in fixture.paths if each == "decode")]
    limits = {"max_abs_dlogp": 1e-4} if decoder else {"max_abs": 1e-5}
    temperatures = {"temperatures": [1.0, 0.7]} if decoder else {}
    checks: list[JsonObject] = [
        {"name": "bits", "relation": "invariance", "paths": list(fixture.paths or paths)},
        {
            "name": "near",
            "relation": "accuracy",
            "limits": limits,
            "paths": near if fixture.paths else ["prefill", "decode"],
        },
        {"name": "cached", "relation": "cache", "paths": ["decode"]},
        {"name": "live", "relation": "liveness", "paths": ["decode"]},
    ]
    if fixture.paths:
        del checks[2:]
    if decoder:
        checks.append({"name": "traced", "relation": "trace", "paths": ["decode"]})
    return Contract.model_validate(
        {
            "version": 1,
            "name": f"matrix-{name}",
            "subject": fixture.subject,
            "numerics": {"execution": "float32", "kv_cache": fixture.store} | temperatures,
            "workloads": list(fixture.workloads),
            "checks": checks,
            "controls": "all",
        }
    )  # fmt: skip


def applies(control: Control, fixture: FixtureContract) -> bool:
    """Whether a fixture contract can show a control."""
    if fixture.only:
        return control.name in fixture.only
    contract = fixture.contract
    if contract.subject.kind not in control.subjects or not possible(control, contract):
        return False
    plain = [_contract(name) for name in ("plain", "pair")]
    needed = {each for each in control.features if not any(has(one, each) for one in plain)}
    return bool(needed & set(fixture.wants)) if fixture.wants else not needed
