"""What all codecs of one examination share: an exact run, its keys and values, filled caches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.labs.codec.capture import Reference, capture, same_bits
from kvparity.labs.codec.document import CodecSequence, ExaminedRun
from kvparity.labs.codec.errors import holds_all
from kvparity.labs.codec.layers import LayerKV, layer_plan, stored
from kvparity.labs.codec.sizes import fill
from kvparity.plan.schedule import Plan
from kvparity.plan.workload import Prompts
from kvparity.run.unit import Runner, Setting
from kvparity.subjects.base import CacheView, Subject
from kvparity.subjects.decoder.config import DecoderShape
from kvparity.subjects.decoder.layers import layers_of
from kvparity_contracts.paths import PathName

Progress = Callable[[str], None]


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

    def run(self, workload: str, kv_cache: str) -> ExaminedRun:
        """What was run."""
        members = self.steps.members
        return ExaminedRun(
            workload=workload,
            sequences=tuple(
                CodecSequence(m.id, m.prompt, own)
                for m, own in zip(members, self.tokens, strict=True)
            ),
            tokens=sum(m.length - m.prompt - 1 for m in members),
            temperature=self.temperature,
            execution=_name(self.execution),
            kv_cache=kv_cache,
            dequantised_to=_name(self.dtype),
        )


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
    if isinstance(config, DecoderShape):
        return decoder_plan(config)
    return layer_plan(config)


def decoder_plan(config: DecoderShape) -> tuple[LayerKV, ...]:
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
    plans = setting.plans(workload)
    prompts = plans.prompts
    if prompts.generate < 2:
        raise UnsupportedError(
            f"workload {workload} generates {prompts.generate} token, from the prompt's own step, "
            "which sees no coded key; expected generate: 2 or more"
        )
    progress("rolling out")
    runner = Runner(setting, plans, None)
    runner.rollout(PathName("decode"))
    tokens = runner.known()
    steps = plans.of(PathName("decode"))
    temperature = setting.contract.numerics.temperatures[0]
    progress("running without a codec")
    reference = capture(subject, steps, tokens, temperature)
    _hold_to_plan(plan, reference)
    if not same_bits(reference.record, runner.record(PathName("decode"))):
        raise SubjectError(
            "the same steps gave other bits the second time: this subject does not repeat itself, "
            "so no drift can be attributed to a codec"
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
