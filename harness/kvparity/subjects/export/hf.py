"""Sessions of a transformers model that run programs of its forward."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import DynamicCache

from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.core.relied import transformers as relied
from kvparity.plan.schedule import Layout, Member, Plan, Step
from kvparity.subjects.export.compiling import Compiled
from kvparity.subjects.export.inspection import require_clean
from kvparity.subjects.export.recipe import Recipe, export, findings, state
from kvparity.subjects.hf import caches, layers
from kvparity.subjects.hf.protocols import Cache, CausalLM, ModelInputs, ModelOutput
from kvparity.subjects.hf.session import Host, Packed

TRACEABLE = ("eager", "sdpa")


class TraceableModel(Host, Protocol):
    """What programs need of a subject over a transformers model."""

    attention: str
    cache_kind: str
    invariant: bool

    def arithmetic(self, *, scoring: bool = False) -> AbstractContextManager[Counter[str]]:
        """The arithmetic that was asked for; at the end, which operations it computed."""
        ...


@dataclass
class ModelPrograms:
    """The programs of one model, made when first needed; sessions share them.

    ``exported``: by capacity, and whether they decode.
    """

    exported: dict[tuple[int, bool], Recipe] = field(default_factory=dict)
    compiled: Compiled[..., ModelOutput] | None = None

    def get(self, subject: TraceableModel, capacity: int, decode: bool) -> Recipe:
        """The exported program for a capacity, inspected."""
        key = (capacity, decode)
        if key not in self.exported:
            recipe = export(subject.model, capacity, rows=1 if decode else 2)
            require_clean(findings(subject.model, recipe), type(subject.model).__name__)
            if recipe.attention() != subject.attention:
                raise SubjectError(
                    f"attention {subject.attention} was asked for, but the exported program of "
                    f"{type(subject.model).__name__} holds {recipe.attention()}"
                )
            self.exported[key] = recipe
        return self.exported[key]

    def compiled_forward(self, model: CausalLM) -> Compiled[..., ModelOutput]:
        """``torch.compile`` of the model's forward, as one graph."""
        if self.compiled is None:
            self.compiled = Compiled(model.forward)
        return self.compiled


def refused(subject: TraceableModel, plan: Plan) -> str | None:
    """Why this plan cannot be run by programs, or None."""
    layout, reason = plan.layout, relied.untraceable()
    if reason is not None:
        return reason
    if subject.attention not in TRACEABLE:
        return (
            f"a traced program with attention {subject.attention}, which looks at its masks on the "
            f"host; choose {' or '.join(TRACEABLE)}"
        )
    if subject.cache_kind != "static":
        return "a traced program over a cache that grows; write cache: static"
    together = any(len(step) != 1 for step in plan.schedule) or layout.batch != "packed"
    if together or not layout.cached or plan.generate or plan.actions:
        return (
            "a traced program takes one sequence per step, packed, with a cache, and neither reset "
            "nor shared prefix; use the paths exported and compiled"
        )
    if layout.program == "compiled" and subject.invariant:
        return "a compiled program in fixed-order arithmetic: inductor fuses what it would swap"
    return None


class _RecipeCaches(caches.SessionCache):
    """The recipe's caches: a sliding layer keeps every key, and its mask hides the older ones."""

    def window(self, layer: int) -> int | None:
        """How many keys a query of this layer sees by the model's config, None: all."""
        kinds = layers.holders(DynamicCache(config=self.config))
        found = kinds[list(self._holders())[layer]]
        return int(found.sliding_window) if found.is_sliding else None


class _Traced(Packed):
    """What both kinds of programs share: whose they are, and what ran of them."""

    def __init__(self, subject: TraceableModel, members: Sequence[Member], layout: Layout) -> None:
        super().__init__(subject, members, layout)
        self.subject, self.kind, self.ran = subject, "prefill", Counter[str]()
        self.longest = max(member.length for member in members)  # of all caches, not compiled anew

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Run one span; float32 rows."""
        self.kind = "decode" if step[0].decode else "prefill"
        yield from super().forward(step, ids)


class ExportedSession(_Traced):
    """Runs every step through a program of ``torch.export``.

    The program's buffers are bound to the cache of the sequence at hand before each call, so one
    program serves all sequences.
    """

    def _recipe(self, decode: bool) -> Recipe:
        capacity = self.longest + self.layout.slack
        return programs_of(self.subject).get(self.subject, capacity, decode)

    def _begin(self, place: caches.CacheRow, member: Member, stop: int) -> None:
        with torch.inference_mode(False):
            place.cache = copy.deepcopy(self._recipe(decode=True).cache)
        for number, layer in layers.holders(place.cache).items():
            if not layer.keys.numel():  # the recipe's stand-in for a layer without a cache
                place.cache.layers[number] = layers.Nothing()
        for layer in layers.holders(place.cache).values():
            layers.clear(layer, self.subject.unused)

    def observed(self) -> Counter[str]:
        """``program.prefill`` and ``program.decode``: programs that returned; and what
        ``invariant`` computed of them.
        """
        return Counter(self.ran)

    def _call(self, cache: Cache | None, inputs: ModelInputs) -> Tensor:
        ids, positions = inputs["input_ids"], inputs["position_ids"]
        recipe, stores = self._recipe(decode=ids.shape[1] == 1), layers.holders(cache)
        for name in state(recipe.program):
            kind, number = name.rsplit("_", 1)
            which = {"key_cache": "keys", "value_cache": "values"}.get(kind, kind)
            if int(number) in stores:
                setattr(recipe.module, name, getattr(stores[int(number)], which))
        with torch.inference_mode(), self.subject.arithmetic() as swapped:
            logits: Tensor = recipe.module(input_ids=ids, cache_position=positions[0])
        self.ran.update(swapped)
        self.ran[f"program.{self.kind}"] += 1
        return logits

    def cache(self) -> caches.SessionCache:
        """The caches, by sequence and position."""
        return _RecipeCaches(self.places, self.config, self.host.unused)


class CompiledSession(_Traced):
    """Decodes through ``torch.compile`` of the model's forward, over a static cache.

    As ``generate()`` does where it compiles: prompts go through the model as it is.
    """

    def observed(self) -> Counter[str]:
        """What ran of the model's own code, and ``program.decode``: runs of compiled code."""
        return super().observed() + self.ran

    def _call(self, cache: Cache | None, inputs: ModelInputs) -> Tensor:
        if self.kind == "prefill":
            return super()._call(cache, inputs)
        with torch.inference_mode():
            found = programs_of(self.subject).compiled_forward(self.subject.model)(
                **{relied.cache_argument(self.subject.model): cache}, use_cache=True, **inputs
            )
        self.ran["program.decode"] += 1
        return found.logits


def programs_of(subject: TraceableModel) -> ModelPrograms:
    """The programs that are kept with a subject."""
    return _kept.setdefault(subject, ModelPrograms())


_kept: WeakKeyDictionary[TraceableModel, ModelPrograms] = WeakKeyDictionary()


def open_session(
    subject: TraceableModel, members: Sequence[Member], layout: Layout
) -> ExportedSession | CompiledSession:
    """A session of the subject that runs programs.

    Raises ``UnsupportedError`` for a layout that programs cannot do.
    """
    reason = refused(subject, Plan(tuple(members), (), layout))
    if reason is not None:
        raise UnsupportedError(reason)
    kind = ExportedSession if layout.program == "exported" else CompiledSession
    return kind(subject, members, layout)
