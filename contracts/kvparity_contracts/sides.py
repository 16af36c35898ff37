"""Two sides that score the same tokens: what a rollout recorded, and what a trainer gives it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Protocol

from pydantic import Field

from kvparity_contracts.base import DType, Fault, Model

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


class RecordedSide(Model):
    """A file of recorded rollouts."""

    TAG: ClassVar[str] = "recorded"

    kind: Literal["recorded"]
    """recorded: logprobs that lie in a file."""
    file: Name
    """Any layout that `kvparity drift` reads; a relative path begins in the contract's folder. The
    same file on both sides: it has the trainer's logprobs, too."""


class ModelSideSpec(Model):
    """A checkpoint that scores the rollout's tokens, with the settings of `kvparity drift`."""

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

    def own_faults(self) -> Iterator[Fault]:
        """Settings that would not act."""
        for key, found, expected in unused(self):
            yield Fault((key,), found, expected)


class Sides(Model):
    """Two sides that score the same tokens."""

    TAG: ClassVar[str] = "sides"

    kind: Literal["sides"]
    """sides: a recorded rollout, and what is to score its tokens as it does."""
    rollout: RecordedSide
    """What drew the tokens."""
    trainer: Annotated[RecordedSide | ModelSideSpec, Field(discriminator="kind")]
    """What rescores them: d is its logprob minus the rollout's."""


def own_numbers(sides: Sides) -> bool:
    """Whether both sides lie in one file."""
    return isinstance(sides.trainer, RecordedSide) and sides.trainer.file == sides.rollout.file
