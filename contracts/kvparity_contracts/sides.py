"""Two sides that score the same tokens: what a rollout gave them, and what a trainer does."""

from __future__ import annotations

from collections.abc import Iterator
from posixpath import normpath
from typing import Annotated, ClassVar, Literal, Protocol

from pydantic import Field

from kvparity_contracts.base import DType, Fault, Model, Positive
from kvparity_contracts.served import NamedServer

Name = Annotated[str, Field(min_length=1)]


class Scoring(Protocol):
    """The settings of a model that scores tokens, as far as one may rule out another."""

    @property
    def attention(self) -> str:
        """Transformers' name."""

    @property
    def layout(self) -> str:
        """How sequences lie in a batch."""

    @property
    def micro_batch(self) -> int:
        """Sequences of one forward."""

    @property
    def position_ids(self) -> bool:
        """Whether they are given."""

    @property
    def train(self) -> bool:
        """Train mode."""

    @property
    def gradient_checkpointing(self) -> bool:
        """Recomputing."""

    @property
    def compile(self) -> bool:
        """By torch.compile."""

    @property
    def autocast(self) -> str | None:
        """Its format."""

    @property
    def invariant(self) -> bool:
        """Fixed order."""

    @property
    def routes(self) -> str:
        """Whose choice of experts."""

    @property
    def adapter(self) -> str | None:
        """A folder."""

    @property
    def merged(self) -> bool:
        """Into the weights."""

    @property
    def adapter_dtype(self) -> str:
        """Of its product."""


def unused(settings: Scoring) -> Iterator[tuple[str, str, str]]:
    """(key, what is found, what is expected) of what would be given and not used."""
    batched = "layout right, left or packed"
    if settings.micro_batch < 1:
        yield "micro_batch", f"micro_batch {settings.micro_batch}", "a number from 1"
    if settings.layout == "alone" and settings.micro_batch > 1:
        yield "micro_batch", f"micro_batch {settings.micro_batch} with layout alone", batched
    if settings.layout == "alone" and not settings.position_ids:
        found = "no position_ids with layout alone: nothing would change"
        yield "position_ids", found, batched
    if settings.gradient_checkpointing and not settings.train:
        found = "gradient_checkpointing acts in train mode alone"
        yield "gradient_checkpointing", found, "train, too"
    if settings.invariant and settings.attention != "eager":
        found = f"invariant with attention {settings.attention}: its sums cannot be replaced"
        yield "invariant", found, "attention eager"
    if settings.invariant and (settings.compile or settings.autocast):
        yield "invariant", "invariant with compile or autocast", "neither"
    if settings.routes == "recorded" and settings.compile:
        found = "recorded routes with compile: a compiled choice of experts cannot be replaced"
        yield "routes", found, "routes own, or no compile"

    if settings.adapter is None and settings.merged:
        yield "merged", "merged without an adapter: nothing would change", "adapter, too"
    if settings.adapter is None and settings.adapter_dtype != "float32":
        found = f"adapter_dtype {settings.adapter_dtype} without an adapter"
        yield "adapter_dtype", found, "adapter, too"


class RecordedSide(Model):
    """A file of recorded rollouts."""

    TAG: ClassVar[str] = "recorded"

    kind: Literal["recorded"]
    """recorded: logprobs that lie in a file."""
    file: Name
    """Any layout that `kvparity drift` reads; a relative path begins in the contract's folder. The
    same file on both sides: it has the trainer's logprobs, too."""


class ModelSideSpec(Model):
    """A checkpoint that scores tokens, with the settings of `kvparity drift`, or draws."""

    TAG: ClassVar[str] = "model"

    kind: Literal["model"]
    """model: a checkpoint that is run here."""
    checkpoint: Name
    """A local folder with config.json and safetensors, relative to this file."""
    dtype: DType = "bfloat16"
    """Of weights and computation."""
    head_dtype: DType | None = None
    """Of the head's product, if another."""
    autocast: DType | None = None
    """Of torch's autocast around the forward."""
    attention: Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3"] = "sdpa"
    """Transformers' name of the implementation."""
    layout: Literal["alone", "right", "left", "packed"] = "alone"
    """Each sequence in a row of its own, padded on a side, or packed into one row."""
    micro_batch: int = 1
    """Sequences of one forward, unless each is alone."""
    position_ids: bool = True
    """Whether they are given; without, a model counts pads, or a packed row, through."""
    log_softmax: Literal["float32", "logits", "chunked"] = "float32"
    """Of logits made float32, as they are, or of float32 in vocabulary chunks."""
    processed: bool = False
    """After the recorded temperature and top-p, as a sampler's logprobs."""
    train: bool = False
    """Train mode, so dropout acts."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of dropout."""
    gradient_checkpointing: bool = False
    """Recompute as training does, in train mode."""
    compile: bool = False
    """By torch.compile."""
    invariant: bool = False
    """Torch's reductions in kvparity's fixed order, with attention: eager."""
    routes: Literal["own", "recorded"] = "own"
    """Experts of a mixture: the model's own choice, or those that the rollout recorded."""
    adapter: Name | None = None
    """The folder of a PEFT adapter that is put on the checkpoint, relative to this file."""
    merged: bool = False
    """Into the checkpoint's weights, in their dtype; else the adapter is computed beside them."""
    adapter_dtype: Literal["float32", "model"] = "float32"
    """An adapter in 16 bits is made float32, as peft trains it, or has the model's dtype."""

    def own_faults(self) -> Iterator[Fault]:
        """Settings that would not act."""
        for key, found, expected in unused(self):
            yield Fault((key,), found, expected)


class ServerSide(NamedServer):
    """A server that draws the tokens or scores them, with the bits that it sends."""

    dtype: DType | None = None
    """What it computes in: void where it does not say so (vLLM does not)."""
    path: Literal["decode", "batched"] = "decode"
    """Where it draws: each prompt alone, or all of a workload at once with two strangers, which its
    metrics must show."""
    vocabulary: Positive | None = None
    """Size of the model's vocabulary, as its config.json has it: ids are below it. Needed where it
    draws."""


ScoringSide = ModelSideSpec | ServerSide
"""What computes logprobs, rather than having them recorded."""
AnySide = RecordedSide | ScoringSide
_Side = Annotated[AnySide, Field(discriminator="kind")]


class Sides(Model):
    """Two sides that score the same tokens."""

    TAG: ClassVar[str] = "sides"

    kind: Literal["sides"]
    """sides: a rollout, and what is to score its tokens as it does."""
    rollout: _Side
    """What drew the tokens, or draws them."""
    trainer: _Side
    """What rescores them: d is its logprob minus the rollout's."""
    tokens: Name | None = None
    """A recording whose tokens both sides score, by their ids alone. Without it they are the
    rollout's: recorded, or drawn for the contract's workloads by a model or server."""
    temperature: Annotated[float, Field(ge=0)] | None = None
    """At which the rollout draws: 1 if left out, and 0 takes the likeliest token each time."""

    def own_faults(self) -> Iterator[Fault]:
        """What would be given and not used, what cannot be known, and a side beside itself."""
        if self.tokens is not None and isinstance(self.rollout, RecordedSide):
            found = "found tokens beside a recorded rollout, which has its own"
            yield Fault(("tokens",), found, "no tokens, or a rollout that is a model or a server")
        if self.draws and isinstance(self.trainer, RecordedSide):
            found = "found a recorded trainer beside a rollout that draws its tokens anew"
            expected = "tokens that both have, or a trainer that is a model or a server"
            yield Fault(("trainer", "kind"), found, expected)
        if self.temperature is not None and not self.draws:
            found = "found a temperature beside a rollout that draws no tokens"
            yield Fault(("temperature",), found, "no temperature")
        if self.draws and any(each.routes == "recorded" for each in self.models):
            found = "found routes: recorded beside a rollout that draws: it records none"
            yield Fault(("trainer",), found, "routes: own, or a recorded rollout")
        yield from self._of_servers()
        if self._one_side_twice:
            found = "found the rollout's own settings, with which it would agree with itself"
            yield Fault(("trainer",), found, "another checkpoint, server or setting")

    def _of_servers(self) -> Iterator[Fault]:
        for key, side in (("rollout", self.rollout), ("trainer", self.trainer)):
            if not isinstance(side, ServerSide):
                continue
            draws = key == "rollout" and self.draws
            if "path" in side.model_fields_set and not draws:
                found = f"found path: {side.path} of a server that scores given tokens"
                yield Fault((key, "path"), found, "no path: it scores by its prefill")
            if side.vocabulary is None and draws:
                found = "found no vocabulary of a server that draws"
                yield Fault((key,), found, "vocabulary, the vocab_size of its model's config.json")

    @property
    def _one_side_twice(self) -> bool:
        if isinstance(self.rollout, ServerSide):
            # What it draws by decode steps, it scores by prefill.
            alike = ("api", "url", "model", "dtype")
            other = self.trainer
            same = isinstance(other, ServerSide) and all(
                getattr(self.rollout, key) == getattr(other, key) for key in alike
            )
            return same and not self.draws
        return isinstance(self.rollout, ModelSideSpec) and _alike(self.rollout, self.trainer)

    @property
    def draws(self) -> bool:
        """Whether the rollout draws tokens for the contract's workloads."""
        return self.tokens is None and not isinstance(self.rollout, RecordedSide)

    @property
    def scores(self) -> ScoringSide | None:
        """The side in which a defect of scoring is planted: the trainer, or else the rollout."""
        found = self.rollout if isinstance(self.trainer, RecordedSide) else self.trainer
        return None if isinstance(found, RecordedSide) else found

    @property
    def models(self) -> tuple[ModelSideSpec, ...]:
        """The sides that are models, the trainer first: defects of models are planted there."""
        return tuple(
            each for each in (self.trainer, self.rollout) if isinstance(each, ModelSideSpec)
        )

    @property
    def checkpoint(self) -> str | None:
        """Of a rollout that is a model: its tokenizer makes the ids of texts."""
        return getattr(self.rollout, "checkpoint", None)

    @property
    def vocabulary(self) -> int | None:
        """Of a server that draws."""
        return getattr(self.rollout, "vocabulary", None)

    def words(self) -> str:
        """What is compared, in one line."""
        told = "the recorded tokens" if self.tokens is None else f"the tokens of {self.tokens}"
        if self.draws:
            at = 1.0 if self.temperature is None else self.temperature
            told = f"tokens that it draws at temperature {at:g}"
        return f"{_named(self.trainer)} against {_named(self.rollout)}, on {told}"


def _named(side: AnySide) -> str:
    name = getattr(side, "file", None) or getattr(side, "checkpoint", None)
    return f"{side.kind} {name or getattr(side, 'url', '')}"


def own_numbers(sides: Sides) -> bool:
    """Whether both sides lie in one file."""
    return isinstance(sides.trainer, RecordedSide) and _alike(sides.trainer, sides.rollout)


def _alike(side: AnySide, other: AnySide) -> bool:
    """Whether both are one, however their files are spelled: ``./model/`` is ``model``."""
    one, another = (
        {key: normpath(x) if isinstance(x, str) else x for key, x in each.model_dump().items()}
        for each in (side, other)
    )
    return one == another
