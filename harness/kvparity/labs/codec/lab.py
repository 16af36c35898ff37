"""One examination: everything about one codec on a prepared subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from kvparity.labs.codec.budget import Budget, choose
from kvparity.labs.codec.capture import Reference
from kvparity.labs.codec.coding import Coding, using
from kvparity.labs.codec.document import (
    CodecReport,
    CodedDepth,
    CodedLayer,
    ContextBytes,
    TokenBytes,
)
from kvparity.labs.codec.errors import layer_errors
from kvparity.labs.codec.honesty import examine
from kvparity.labs.codec.layers import stored
from kvparity.labs.codec.prepare import Bench
from kvparity.labs.codec.protocol import Tensors
from kvparity.labs.codec.registry import CodecPair
from kvparity.labs.codec.runs import CodedRun, Runs
from kvparity.labs.codec.sizes import calculated, check, plain, token_bytes
from kvparity.labs.codec.stages import stage_shares, stages_of

CONTEXTS = (1024, 8192, 32768, 131072)


def fixed_of(pair: CodecPair, reference: Reference) -> dict[int, tuple[Tensors, Tensors]]:
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
    bench: Bench, pair: CodecPair, *, budget: Budget | None, contexts: Sequence[int] | None
) -> CodecReport:
    """Everything about one codec.

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
    picked = coding if chosen is None else coding.of(frozenset(chosen.coded_layers))
    return CodecReport(
        name=pair.name,
        stages=stages_of(pair),
        tokens_coded_alone=all(each.alone for each in findings.values()),
        stages_explain_all=all(each.explained for each in findings.values()),
        bytes_per_token=_per_token(bench, coding),
        layers=_layers(bench, coding, single),
        depth=tuple(CodedDepth(**asdict(run), layers=k) for k, run in enumerate(depth)),
        stage_shares=stage_shares(runs, coding, layers, depth[-1], bench.execution),
        # A codec whose stages are its error drifts 0 bits; a cache that rounds to its own dtype
        # gives exact numbers the same bits again.
        all_stages_exact=runs.measure(coding.with_exact(frozenset(stages_of(pair)))),
        budget=chosen,
        sizes=sizes,
        contexts=_contexts(bench, coding, picked, contexts),
    )


def _per_token(bench: Bench, coding: Coding) -> TokenBytes:
    """Bytes of one token in all stored layers: while no window is full yet."""
    shapes = stored(bench.plan)
    total = sum(token_bytes(coding, i, x, bench.execution) for i, x in enumerate(shapes))
    exact = plain(bench.plan, 1, bench.execution)
    return TokenBytes(total, exact, total / exact)


def _layers(bench: Bench, coding: Coding, single: Sequence[CodedRun]) -> tuple[CodedLayer, ...]:
    errors = layer_errors(coding, bench.reference.layers)
    return tuple(
        CodedLayer(
            layer=number,
            model_layer=shape.owner,
            read_by=tuple(i for i, x in enumerate(bench.plan) if x.owner == shape.owner),
            kind=shape.kind,
            window=shape.window or None,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            bytes_per_token=token_bytes(coding, number, shape, bench.execution),
            error=errors[number],
            alone=single[number],
        )
        for number, shape in enumerate(stored(bench.plan))
    )


def _contexts(
    bench: Bench, coding: Coding, picked: Coding, contexts: Sequence[int] | None
) -> tuple[ContextBytes, ...]:
    """Bytes at other lengths, calculated: in the execution dtype, coded, and as was picked."""
    limit = bench.subject.max_positions
    own = [limit] if limit < 2**31 - 1 else []
    lengths = contexts or sorted({*(n for n in CONTEXTS if n <= limit), *own})
    return tuple(
        ContextBytes(
            length=n,
            execution=plain(bench.plan, n, bench.execution),
            coded=calculated(bench.plan, coding, n, bench.execution),
            picked=calculated(bench.plan, picked, n, bench.execution),
        )
        for n in lengths
    )
