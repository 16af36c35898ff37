"""One examination: a contract's subject and first workload, several codecs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from kvparity.codec.budget import Budget, choose
from kvparity.codec.capture import Reference, capture, same_bits
from kvparity.codec.coding import Coding, using
from kvparity.codec.errors import holds_all, layer_errors
from kvparity.codec.honesty import examine
from kvparity.codec.layers import LayerKV, layer_plan, stored
from kvparity.codec.registry import Pair
from kvparity.codec.runs import Outcome, Runs
from kvparity.codec.sizes import calculated, check, fill, plain, token_bytes
from kvparity.codec.stages import stage_shares, stages_of
from kvparity.decoder.config import DecoderConfig
from kvparity.decoder.layers import layers_of
from kvparity.paths import build
from kvparity.schedule import Plan
from kvparity.subject import CacheView, Subject, SubjectError, UnsupportedError
from kvparity.unit import Runner, Setting
from kvparity.workload import Prompts
from kvparity_contracts.paths import PathName

Progress = Callable[[str], None]
CONTEXTS = (1024, 8192, 32768, 131072)


@dataclass(frozen=True)
class Bench:
    """What all codecs of one examination share.

    ``dtype``: what codes are dequantised to. ``caches``: by length, a cache filled so far.
    """

    subject: Subject
    plan: tuple[LayerKV, ...]
    steps: Plan
    tokens: tuple[tuple[int, ...], ...]
    temperature: float
    reference: Reference
    execution: torch.dtype
    dtype: torch.dtype
    caches: dict[int, CacheView]
    progress: Progress

    def json(self, workload: str, kv_cache: str) -> dict[str, Any]:
        """What was run, as JSON values."""
        members = self.steps.members
        return {
            "workload": workload,
            "sequences": [
                {"id": m.id, "prompt": m.prompt, "ids": list(own)}
                for m, own in zip(members, self.tokens, strict=True)
            ],
            "tokens": sum(m.length - m.prompt - 1 for m in members),
            "temperature": self.temperature,
            "execution": _name(self.execution),
            "kv_cache": kv_cache,
            "dequantised_to": _name(self.dtype),
        }

    def layers_json(self) -> list[dict[str, Any]]:
        """The layer plan, as JSON values."""
        return [{"layer": number, **asdict(layer)} for number, layer in enumerate(self.plan)]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def plan_of(subject: Subject) -> tuple[LayerKV, ...]:
    """The layer plan of a subject's model.

    Raises ``UnsupportedError`` for a subject without layers, or of an unknown kind of model.
    """
    config = getattr(getattr(subject, "model", None), "config", None)
    if config is None:
        raise UnsupportedError(
            "this subject has no model with layers; a codec is examined on a decoder or a "
            "transformers model"
        )
    if isinstance(config, DecoderConfig):
        return decoder_plan(config)
    return layer_plan(config)


def decoder_plan(config: DecoderConfig) -> tuple[LayerKV, ...]:
    """The layer plan of the reference decoder."""
    found = []
    for number, layer in enumerate(layers_of(config)):
        own = "window" if layer.window else "full"
        found.append(
            LayerKV(
                "shared" if layer.follower else own,  # type: ignore[arg-type] # both are kinds
                layer.stored if layer.follower else number,
                config.kv_heads,
                config.head_dim,
                layer.window,
            )
        )
    return tuple(found)


def prepare(
    setting: Setting,
    workload: str,
    *,
    execution: torch.dtype,
    dtype: torch.dtype | None,
    lengths: Sequence[int] | None,
    progress: Progress,
) -> Bench:
    """Roll out once, exactly; keep every key and value; fill caches of two lengths.

    Raises ``UnsupportedError`` for what cannot be examined, and ``SubjectError`` where the subject
    does not repeat itself, or stores other layers than its plan has.
    """
    subject = setting.subject
    plan = plan_of(subject)
    prompts = setting.prompts(workload)
    if prompts.generate < 2:
        raise UnsupportedError(
            f"workload {workload} generates {prompts.generate} token, from the prompt's own step, "
            "which sees no coded key; expected generate: 2 or more"
        )
    progress("rolling out")
    runner = Runner(setting, prompts, None)
    runner.rollout(PathName("decode"))
    tokens = runner.known()
    steps = build(PathName("decode"), prompts, seed=setting.contract.seed)
    temperature = setting.contract.numerics.temperatures[0]
    progress("running without a codec")
    reference = capture(subject, steps, tokens, temperature)
    _hold_to_plan(plan, reference)
    if not same_bits(reference.record, runner.record(PathName("decode"))):
        raise SubjectError(
            "the same steps gave other bits the second time: this subject does not repeat itself, "
            "so no drift can be laid on a codec"
        )
    dtype = dtype or execution
    if not holds_all(reference.dtype, dtype):
        raise UnsupportedError(
            f"codes dequantised to {_name(dtype)} cannot be kept by a cache in "
            f"{_name(reference.dtype)}; use the "
            "cache's own format, or a contract with kv_cache: float32"
        )
    return Bench(
        subject=subject,
        plan=plan,
        steps=steps,
        tokens=tuple(map(tuple, tokens)),
        temperature=temperature,
        reference=reference,
        execution=execution,
        dtype=dtype,
        caches=_caches(subject, plan, prompts, tokens, lengths),
        progress=progress,
    )


def _hold_to_plan(plan: Sequence[LayerKV], reference: Reference) -> None:
    planned = len(stored(plan))
    if planned != len(reference.layers):
        raise SubjectError(
            f"the layer plan has {planned} layers that store keys, the cache has "
            f"{len(reference.layers)}"
        )


def _caches(
    subject: Subject,
    plan: Sequence[LayerKV],
    prompts: Prompts,
    tokens: Sequence[Sequence[int]],
    lengths: Sequence[int] | None,
) -> dict[int, CacheView]:
    """Caches of two lengths; without ``lengths`` the longer one passes every short window."""
    if lengths is None:
        widest = max((x.window for x in plan if x.window <= 1024), default=0)
        longest = max(prompts.longest, widest + widest // 2)
        longest = min(longest, subject.max_positions)
        lengths = sorted({max(1, longest // 3), longest})
    flat = [token for own in tokens for token in own]
    for length in lengths:
        if not 0 < length <= subject.max_positions:
            raise UnsupportedError(
                f"a cache of {length} tokens cannot be filled: the subject has "
                f"{subject.max_positions} positions"
            )
    return {n: fill(subject, (flat * (n // len(flat) + 1))[:n]) for n in lengths}


def fixed_of(pair: Pair, reference: Reference) -> dict[int, Any]:
    """What the codecs calibrate in every layer, from the prompts of the exact run."""
    found = {}
    for number, layer in enumerate(reference.layers):
        with using(pair.k):
            k = pair.k.calibrate(layer.k[: layer.prompt].clone())
        with using(pair.v):
            v = pair.v.calibrate(layer.v[: layer.prompt].clone())
        found[number] = (k, v)
    return found


def examine_codec(
    bench: Bench, pair: Pair, *, budget: Budget | None, contexts: Sequence[int] | None
) -> dict[str, Any]:
    """Everything about one codec, as JSON values.

    Raises ``SubjectError`` where the codec or the layer plan is caught at a wrong number of bytes.
    """
    layers = bench.reference.layers
    every = frozenset(range(len(layers)))
    coding = Coding(pair, bench.dtype, every, fixed_of(pair, bench.reference))
    bench.progress(f"{pair.name}, looking at the codec itself")
    findings = {
        f"{number}.{part}": examine(codec, getattr(layer, part), fixed, bench.dtype)
        for number, layer in enumerate(layers)
        for (part, codec), fixed in zip(pair.parts, coding.fixed[number], strict=True)
    }
    sizes = check(bench.plan, coding, bench.caches, bench.execution)
    runs = Runs(
        bench.subject,
        bench.steps,
        bench.tokens,
        bench.temperature,
        bench.reference,
        bench.progress,
    )
    depth = [runs.measure(coding.of(frozenset(range(k)))) for k in range(len(layers) + 1)]
    single = [runs.measure(coding.of(frozenset({layer}))) for layer in sorted(every)]
    chosen = None if budget is None else choose(runs, coding, single, budget)
    picked = coding if chosen is None else coding.of(frozenset(chosen.coded))
    return {
        "name": pair.name,
        "stages": list(stages_of(pair)),
        "tokens_coded_alone": all(each.alone for each in findings.values()),
        "stages_explain_all": all(each.explained for each in findings.values()),
        "bytes_per_token": _per_token(bench, coding),
        "layers": _layers(bench, coding, single),
        "depth": [{"layers": k, **outcome.json()} for k, outcome in enumerate(depth)],
        "stage_shares": [
            share.json() for share in stage_shares(runs, coding, layers, depth[-1], bench.execution)
        ],
        "all_stages_exact": _all_exact(runs, coding).json(),
        "budget": None if chosen is None else chosen.json(),
        "sizes": [asdict(size) for size in sizes],
        "contexts": _contexts(bench, coding, picked, contexts),
    }


def _all_exact(runs: Runs, coding: Coding) -> Outcome:
    """All layers coded with every stage exact: a codec whose stages are its error drifts 0 bits.

    Where the cache rounds to its own dtype, exact numbers come out of that with their bits too.
    """
    return runs.measure(coding.with_exact(frozenset(stages_of(coding.pair))))


def _per_token(bench: Bench, coding: Coding) -> dict[str, Any]:
    """Bytes of one token in all stored layers: while no window is full yet."""
    shapes = stored(bench.plan)
    total = sum(token_bytes(coding, i, x, bench.execution) for i, x in enumerate(shapes))
    exact = plain(bench.plan, 1, bench.execution)
    return {"coded": total, "execution": exact, "ratio": total / exact}


def _layers(bench: Bench, coding: Coding, single: Sequence[Outcome]) -> list[dict[str, Any]]:
    errors = layer_errors(coding, bench.reference.layers)
    return [
        {
            "layer": number,
            "model_layer": shape.owner,
            "read_by": [i for i, x in enumerate(bench.plan) if x.owner == shape.owner],
            "kind": shape.kind,
            "window": shape.window or None,
            "kv_heads": shape.kv_heads,
            "head_dim": shape.head_dim,
            "bytes_per_token": token_bytes(coding, number, shape, bench.execution),
            "error": errors[number].json(),
            "alone": single[number].json(),
        }
        for number, shape in enumerate(stored(bench.plan))
    ]


def _contexts(
    bench: Bench, coding: Coding, picked: Coding, contexts: Sequence[int] | None
) -> list[dict[str, Any]]:
    """Bytes at other lengths, calculated: in the execution dtype, coded, and as was picked."""
    limit = bench.subject.max_positions
    own = [limit] if limit < 2**31 - 1 else []
    lengths = contexts or sorted({*(n for n in CONTEXTS if n <= limit), *own})
    return [
        {
            "length": n,
            "execution": plain(bench.plan, n, bench.execution),
            "coded": calculated(bench.plan, coding, n, bench.execution),
            "picked": calculated(bench.plan, picked, n, bench.execution),
        }
        for n in lengths
    ]
