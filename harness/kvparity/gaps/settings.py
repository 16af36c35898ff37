"""How a trainer's model scores given tokens: every setting that is known to move logprobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, get_args

from kvparity_contracts.sides import unused

DTYPES = ("float32", "bfloat16", "float16")
ATTENTION = ("sdpa", "eager", "flash_attention_2", "flash_attention_3")
Dtype = Literal["float32", "bfloat16", "float16"]
Layout = Literal["alone", "right", "left", "packed"]
LAYOUTS = ("alone", "right", "left", "packed")
LogSoftmax = Literal["float32", "logits", "chunked"]
LOG_SOFTMAX = ("float32", "logits", "chunked")
RoutesFrom = Literal["own", "recorded"]
AdapterDtype = Literal["float32", "model"]
_WORDS: Mapping[str, tuple[object, ...]] = {
    "dtype": DTYPES,
    "head_dtype": (*DTYPES, None),
    "autocast": (*DTYPES, None),
    "layout": LAYOUTS,
    "log_softmax": LOG_SOFTMAX,
    "routes": get_args(RoutesFrom),
    "adapter_dtype": get_args(AdapterDtype),
}


@dataclass(frozen=True)
class Settings:
    """Of one model side. The defaults are those of a plain script of transformers.

    ``dtype``: of weights and computation. ``head_dtype``: of the head's product, if another.
    ``autocast``: of torch's autocast around the forward. ``attention``: transformers' name.
    ``layout``: each sequence in a row of its own (``alone``), in batches of ``micro_batch`` padded
    on a side, or ``micro_batch`` sequences packed into one row. ``position_ids``: given, from 0 in
    each sequence; without them a model counts pads, or a packed row, through.
    ``log_softmax``: of logits made float32, of logits as they are, or of float32 in vocabulary
    chunks. ``weights``: the folder whose weights are loaded in place of the checkpoint's;
    ``head_weights``: the folder whose head alone is. ``processed``: after the recorded temperature
    and top-p, as a sampler's logprobs. ``train``: train mode, so dropout acts, from ``seed``.
    ``invariant``: torch's reductions in kvparity's fixed order. ``routes``: experts of a mixture
    are the model's own choice, or the recorded ones, with the model's own weights. ``adapter``: the
    folder of a PEFT adapter, computed beside the layers or ``merged`` into them; one in 16 bits is
    made float32, as peft trains it, or has the dtype of the ``model``.
    """

    dtype: Dtype = "bfloat16"
    head_dtype: Dtype | None = None
    autocast: Dtype | None = None
    attention: str = "sdpa"
    layout: Layout = "alone"
    micro_batch: int = 1
    position_ids: bool = True
    log_softmax: LogSoftmax = "float32"
    processed: bool = False
    train: bool = False
    seed: int = 0
    gradient_checkpointing: bool = False
    compile: bool = False
    invariant: bool = False
    routes: RoutesFrom = "own"
    adapter: str | None = None
    merged: bool = False
    adapter_dtype: AdapterDtype = "float32"
    weights: str | None = None
    head_weights: str | None = None

    def __post_init__(self) -> None:
        """Refuses words that mean nothing, and what would be given and not used.

        Raises:
            ValueError: in words.
        """
        for name, known in _WORDS.items():
            if (value := getattr(self, name)) not in known:
                expected = ", ".join(str(each) for each in known)
                raise ValueError(f"{name}: found {value!r}, expected one of {expected}")
        for _, found, expected in unused(self):
            raise ValueError(f"{found}: expected {expected}")

    def changes(self, other: Settings) -> dict[str, object]:
        """What ``other`` has otherwise, by name."""
        return {
            each.name: getattr(other, each.name)
            for each in fields(self)
            if getattr(self, each.name) != getattr(other, each.name)
        }

    def words(self) -> str:
        """In one line: the dtype, attention, and what is not the default."""
        said = [self.dtype, self.attention]
        plain = Settings(dtype=self.dtype, attention=self.attention)
        for name, value in plain.changes(self).items():
            said.append(name if value is True else f"{name} {value}")
        return ", ".join(said)
