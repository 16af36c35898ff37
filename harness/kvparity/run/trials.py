"""One tiny thing with every kind of subject, as a verification does it: does it work here, today?

Looking for a module says nothing about its release. A trial builds a subject as a contract would,
and runs two paths of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

import torch

from kvparity.core.bits import differing
from kvparity.plan.workload import Prompts
from kvparity.plan.workload_plans import WorkloadPlans
from kvparity.record.execute import Record, run
from kvparity.subjects.base import Subject
from kvparity.subjects.registry import factory
from kvparity_contracts.json_types import JsonValue
from kvparity_contracts.order import Order
from kvparity_contracts.paths import PathName
from kvparity_contracts.subjects import Attention, Decoder, Heads, Transformers

if TYPE_CHECKING:
    from kvparity.subjects.pair.subject import AttentionSubject

PROMPTS = Prompts("trial", ("trial/0",), ((1, 2, 3),), 2)
OWN = "kvparity_kernels.attention"
MODEL: dict[str, JsonValue] = {
    "model_type": "qwen3",
    "vocab_size": 32,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 32,
}
ORDER_KEYS = 5
WORDS = 300
"""Characters of what a library says that are repeated."""


class FailedError(Exception):
    """A trial gave something else than it should; the message says what."""


@dataclass(frozen=True)
class Tried:
    """What came of a trial. ``problem``: one sentence, None if it did what it should.

    ``missing``: what to install to have the library that it needs, which is optional.
    """

    what: str
    seconds: float
    problem: str | None = None
    missing: str | None = None

    def __str__(self) -> str:
        if self.missing:
            return f"not installed (optional): {self.missing}"
        return f"{'FAILED' if self.problem else 'works'}: {self.what} ({self.seconds:.1f} s)"


@dataclass(frozen=True)
class Trial:
    """``needs``: the optional module without which there is nothing to try, and its extra."""

    what: str
    call: Callable[[torch.device], None]
    needs: str | None = None


def attention(device: torch.device) -> None:
    """The project's own attention kernels, interpreted or compiled, as a pair."""
    _same_bits(_pair(device), "prefill", "decode")


def decoder(device: torch.device) -> None:
    """The reference decoder of two layers, with the order of the contract ``smoke``."""
    model = Decoder(kind="decoder", preset="tiny", order=Order(split=128, tile=64))
    _same_bits(_subject(model, device), "prefill", "decode")


def transformers(device: torch.device) -> None:
    """A two-layer model: its own ``generate()`` with its own attention, then with ours.

    Its bits may well differ between two paths; that is for a verification to say.
    """
    for chosen in ("sdpa", "kvparity"):
        blocks = Order(split=16, tile=16, block_m=16) if chosen == "kvparity" else None
        model = Transformers(kind="transformers", config=MODEL, attention=chosen, order=blocks)
        subject = _subject(model, device)
        for path in ("prefill", "decode", "generate"):
            _record(subject, path)


def order(device: torch.device) -> None:
    """The order of the keys, probed and certified."""
    from kvparity.relations.order.examine import order_report

    found = order_report(_pair(device), ORDER_KEYS, draws=1, only=("key order",))
    if found.verdict != "consistent":
        raise FailedError(f"the order of our own kernels came out as {found.verdict}")


def flashinfer(device: torch.device) -> None:
    """Its signatures; what it computes needs a GPU and a compiler, and is not tried."""
    import flashinfer as library

    from kvparity.core.relied.flashinfer import gone

    if missing := gone(library):
        raise FailedError("; ".join(missing))


TRIALS: Mapping[str, Trial] = {
    "attention": Trial("prefill and decode of the attention kernels gave the same bits", attention),
    "decoder": Trial("prefill and decode of two layers gave the same bits", decoder),
    "transformers": Trial(
        "forward and generate() of two layers, with sdpa and with kvparity's attention",
        transformers,
        "transformers",
    ),
    "order": Trial(f"the order over {ORDER_KEYS} keys was probed and certified", order),
    "flashinfer": Trial("its wrappers accept kvparity's arguments", flashinfer, "flashinfer"),
}


def tried(device: torch.device) -> dict[str, Tried]:
    """Every trial, by name. Nothing that a library raises gets out."""
    return {name: _tried(name, trial, device) for name, trial in TRIALS.items()}


def _tried(name: str, trial: Trial, device: torch.device) -> Tried:
    if trial.needs and not _there(trial.needs):
        return Tried(trial.what, 0.0, missing=f"pip install 'kvparity[{trial.needs}]'")
    begun, problem = time.perf_counter(), None
    try:
        trial.call(device)
    except FailedError as error:
        problem = f"{name} does not work on {device}: {error}"
    except Exception as error:
        words = shorten(str(error), WORDS, placeholder=" ...") or "without a word"
        problem = f"{name} does not work on {device}: {type(error).__name__}: {words}"
    return Tried(trial.what, round(time.perf_counter() - begun, 2), problem)


def _there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # something stands in its place: what it is shows when it is tried
        return True


def _pair(device: torch.device) -> AttentionSubject:
    from kvparity.subjects.pair.subject import AttentionSubject

    heads = Heads(query=1, kv=1, dim=16)
    model = Attention(
        kind="attention", prefill=f"{OWN}:prefill", decode=f"{OWN}:decode", heads=heads
    )
    found = _subject(model, device)
    if not isinstance(found, AttentionSubject):
        raise TypeError(f"{model.kind} is no pair of kernels")
    return found


def _subject(model: Attention | Decoder | Transformers, device: torch.device) -> Subject:
    return factory(model.kind)(
        model,
        execution="float32",
        kv_cache="float32",
        device=device,
        seed=0,
        base=Path(),
    )


def _record(subject: Subject, path: str) -> Record:
    plan = WorkloadPlans(PROMPTS, 0).of(PathName.parse(path))
    tokens = [[1, 2, 3, 4, 5] for _ in plan.members]
    found = run(subject, plan, tokens, temperatures=(1.0,))
    if not len(found.index) or not bool(found.finite.all()):
        raise FailedError(f"path {path} gave no finite values")
    return found


def _same_bits(subject: Subject, *paths: str) -> None:
    first, second = (_record(subject, path) for path in paths)
    if first.index != second.index or bool(differing(first.values, second.values).any()):
        raise FailedError(f"paths {' and '.join(paths)} gave different bits")
