"""Subject *transformers*: a causal LM of Hugging Face transformers, run as its user runs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from kvparity.core import offline
from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.core.relied.transformers import attention_of, unreset
from kvparity.plan.schedule import Layout, Member, Plan
from kvparity.subjects.hf import attention as fixed
from kvparity.subjects.hf import caches, describing, flex, loading, oracle, spread
from kvparity.subjects.hf import generate as generation
from kvparity.subjects.hf.protocols import Cache, CausalLM, ModelConfig
from kvparity.subjects.hf.run_counts import Observation, called, observing, watch
from kvparity.subjects.hf.session import Packed, Padded, refused
from kvparity_contracts.hf_config import stretches
from kvparity_contracts.json_types import JsonObject, JsonValue
from kvparity_contracts.subjects import Transformers
from kvparity_kernels import invariant
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.overrides import NotInvariantError
from kvparity_kernels.overrides.guard import paused

_SWAPPED = "invariant."
"""The prefix of names by which operations in fixed order are counted."""


class TransformersSubject:
    """A loaded model with its attention, cache kind and reduction order.

    ``after_step`` (default None) is called inside ``generate()`` between two forwards with the
    cache, as a ``CacheView`` of one sequence, and the number of positions filled: the place where
    a defect of the cache can be planted into transformers' own loop.

    ``invariant`` computes the model's forwards and the logprobs under
    ``kvparity_kernels.invariant()``.
    """

    def __init__(
        self,
        model: CausalLM,
        *,
        attention: str,
        cache: str,
        order: ReductionOrder,
        device: torch.device,
        invariant: bool = False,
        notes: Sequence[str] = (),
        device_map: Mapping[str, str] | None = None,
    ) -> None:
        config = model.config.get_text_config(decoder=True)
        self.model, self.device = model, device
        self.attention, self.cache_kind, self.order = attention, cache, order
        self.vocab = int(config.vocab_size)
        self.max_positions = _positions(config)
        pad = getattr(config, "pad_token_id", None)
        self.pad_token = pad if isinstance(pad, int) and 0 <= pad < self.vocab else 0
        self.after_step: generation.AfterStep | None = None
        self.invariant, self.notes, self.device_map = invariant, notes, device_map
        self._ran: Counter[str] = Counter()  # whatever ran since it was loaded
        self._scored: Counter[str] = Counter()  # what the logprobs took, which no model ran
        self._float64: CausalLM | None = None
        self._about: JsonObject | None = None
        # transformers' own backends multiply unused slots by zero, so they cannot hold NaN.
        self.unused = float("nan") if attention == fixed.NAME else caches.GARBAGE
        watch(model)

    # what sessions need

    @contextmanager
    def observing(self, seen: Observation) -> Iterator[None]:
        """Count into ``seen``. Raises ``SubjectError`` if another attention than asked ran."""
        before = Counter(seen.counts)
        with observing(seen), flex.quiet(self.attention), self.arithmetic() as swapped:
            yield
        ran = seen.counts - before
        self._ran.update(ran)
        seen.counts.update(swapped)
        backends = called(ran)
        own = self.attention == "eager" and not backends  # a model that asks for no function
        right = own or backends == [self.attention]
        if not right:
            raise SubjectError(
                f"attention {self.attention} was asked for, but {type(self.model).__name__} ran "
                f"{' and '.join(backends) or 'an attention of its own'}"
            )

    @contextmanager
    def arithmetic(self, *, scoring: bool = False) -> Iterator[Counter[str]]:
        """The arithmetic that was asked for; at the end, which operations it computed, counted.

        ``scoring``: of logprobs, not of the model.
        """
        swapped: Counter[str] = Counter()
        if not self.invariant:
            yield swapped
            return
        try:
            with invariant() as report:
                yield swapped
        except NotInvariantError as error:
            raise UnsupportedError(f"{type(self.model).__name__} under {error}") from error
        swapped.update({f"{_SWAPPED}{name}": n for name, n in report.overridden.items()})
        (self._scored if scoring else self._ran).update(swapped)

    def new_cache(self, *, batch: int, capacity: int | None) -> Cache:
        """An empty cache, dynamic without a ``capacity``.

        Unused slots hold NaN where the attention reads none of them.
        """
        if self.cache_kind == "dynamic" or capacity is None:
            return caches.dynamic(self.model.config)
        poison = self.unused != self.unused
        return caches.static(self.model, batch=batch, capacity=capacity, poison=poison)

    # the seam

    def unsupported(self, plan: Plan) -> str | None:
        """Pages, several sequences in a packed step, steps without all of a rectangle."""
        if plan.layout.page:
            return f"a cache in pages of {plan.layout.page}: transformers' caches are contiguous"
        if plan.layout.program != "eager":
            from kvparity.subjects.export.hf import refused as untraced  # tracing is slow to import

            return untraced(self, plan)
        if plan.generate:
            padded = plan.layout.batch != "packed"
            return "generate() over a padded batch; use it without padding" if padded else None
        for step in plan.schedule:
            reason = refused(plan.layout, plan.members, step)
            if reason is not None:
                return reason
        if plan.actions and plan.layout.batch != "packed":
            return "a reset or a shared prefix of a padded batch; use it without padding"
        if self.cache_kind == "dynamic" and any(each.kind == "reset" for each in plan.actions):
            return unreset()
        return None

    def session(self, members: Sequence[Member], layout: Layout) -> Packed | Padded:
        """Open a session: a cache per member, or one for a padded batch."""
        if layout.page:
            raise UnsupportedError(f"a cache in pages of {layout.page}: use a contiguous layout")
        if layout.program != "eager":
            from kvparity.subjects.export.hf import open_session

            return open_session(self, members, layout)
        return (Packed if layout.batch == "packed" else Padded)(self, members, layout)

    def generate(
        self, member: Member, prompt: Sequence[int], choose: generation.Choose
    ) -> Counter[str]:
        """The model's own ``generate()``; returns what was observed."""
        seen = Observation(order=self.order)
        with self.observing(seen):
            generation.generate(
                self.model,
                member.id,
                prompt,
                member.length,
                paused()(choose),  # of the harness, computed as everywhere else in it
                static=self.cache_kind == "static",
                pad_token=self.pad_token,
                seen=seen,
                after_step=None if self.after_step is None else paused()(self.after_step),
            )
        wanted = f"cache.{caches.CLASSES[self.cache_kind]}"
        if any(key.startswith("cache.") and key != wanted for key in seen.counts):
            raise SubjectError(
                f"generate() was asked for a {wanted[6:]}, but the model's forward was given "
                f"{sorted(k[6:] for k in seen.counts if k.startswith('cache.'))}"
            )
        return seen.counts

    def values(self, rows: Tensor, targets: Tensor, temperatures: Sequence[float]) -> Tensor:
        """Logprobs float32 ``[r, temperatures]`` as the model's user computes them: torch's
        log_softmax of the float32 logits over the temperature, in the arithmetic asked for.
        """
        logits = rows.float()
        with self.arithmetic(scoring=True):
            columns = [
                torch.log_softmax(logits / t, dim=-1).gather(1, targets[:, None])
                for t in temperatures
            ]
        return torch.cat(columns, dim=1)

    def oracle(self, member: Member, ids: Sequence[int], rows: Sequence[int]) -> Tensor:
        """Float64 logits of the same weights with eager attention and eager experts, over the whole
        sequence; ``OracleError`` where the model's code does not compute in float64.

        transformers computes norms, softmax and rotary angles in float32 whatever the model's
        dtype, so these logits are good to about 1e-6 relative, not to float64.
        """
        if self._float64 is None:
            try:
                self._float64 = oracle.twin(self.model)
            except Exception as error:  # memory, or the model's own code
                raise oracle.refusal(self.model, error) from error
        return oracle.logits(self._float64, ids, rows, self.device)

    def describe(self, ran: Counter[str] | None = None) -> JsonObject:
        """What is loaded, the attention that ran, and what ``invariant`` swapped.

        ``invariant`` is used where the model's forwards took some of it; logprobs always do.
        """
        ran = self._ran if ran is None else ran
        own = {name.removeprefix(_SWAPPED) for name in ran if name.startswith(_SWAPPED)}
        if self._about is None:
            self._about = describing.about(self.model)
        asked: dict[str, JsonValue] = {"attention": self.attention}
        asked["devices"] = spread.wanted(self.model, self.device_map, self.device)
        used: dict[str, JsonValue] = {"attention": attention_of(self.model)}
        used["devices"] = spread.lying(self.model, self.device_map)
        if self.invariant:
            asked["invariant"], used["invariant"] = True, bool(own)
        return {
            "kind": "transformers",
            **self._about,
            "requested": asked,
            "used": used,
            "invariant": sorted(own | {name.removeprefix(_SWAPPED) for name in self._scored}),
            "attention_called": called(ran),
            "order": asdict(self.order) if self.attention == fixed.NAME else None,
            "cache": caches.CLASSES[self.cache_kind],
            "notes": list(self.notes),
        }


def _positions(config: ModelConfig) -> int:
    """The longest sequence: of the config, or any where its rotary angles follow the length."""
    most = getattr(config, "max_position_embeddings", None)
    return int(most) if most and not stretches(config.to_dict()) else 2**31 - 1


def build(
    model: Transformers,
    *,
    execution: str,
    kv_cache: str,
    device: torch.device,
    seed: int,
    base: Path,
) -> TransformersSubject:
    """The subject that a contract describes.

    Raises:
        ValueError: the config names no model of transformers, or an unknown key.
        SubjectError: the checkpoint is incomplete, or needs code of its own.
        UnsupportedError: a cache dtype or an attention that this model or machine does not have.
    """
    if kv_cache != execution:
        raise UnsupportedError(
            f"kv_cache {kv_cache} with execution {execution}: a transformers cache stores what the "
            "model computes; leave kv_cache out or make them equal"
        )
    offline.ensure()
    fixed.register()
    dtype: torch.dtype = getattr(torch, execution)
    if model.config is not None:
        loaded = loading.from_config(
            model.config,
            dtype=dtype,
            attention=model.attention,
            device=device,
            seed=seed,
            device_map=model.device_map,
        )
    else:
        assert model.checkpoint is not None  # the contract has exactly one of the two
        loaded = loading.from_folder(
            base / model.checkpoint,
            dtype=dtype,
            attention=model.attention,
            device=device,
            device_map=model.device_map,
        )
    used = attention_of(loaded.model)
    if used != model.attention:
        raise UnsupportedError(f"attention {model.attention} was asked for, the model took {used}")
    caches.require_keys(loaded.model)
    subject = TransformersSubject(
        loaded.model,
        attention=model.attention,
        cache=model.cache,
        order=ReductionOrder(**(model.order.model_dump() if model.order else {})),
        device=device,
        invariant=model.invariant,
        notes=loaded.notes,
        device_map=model.device_map,
    )
    if model.attention == "flex_attention":
        flex.tried(subject)
    return subject
