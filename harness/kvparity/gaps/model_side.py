"""A side that is a model: the logprobs that a trainer with these settings gives given tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import nn

from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.core.raised import told
from kvparity.gaps import adapters
from kvparity.gaps.forward import TokenBatch, batch, logprobs, of_response
from kvparity.gaps.routing import Routing
from kvparity.gaps.settings import Settings
from kvparity.rollouts.record import (
    Ids,
    Logprobs,
    Rollout,
    RolloutError,
    Routes,
    Sampling,
    scorable,
)
from kvparity.subjects.hf.protocols import CausalLM
from kvparity_kernels import invariant

Scored = tuple[Rollout, Logprobs]


class ModelSide:
    """A checkpoint with settings. ``vocabulary``: ids must be below it.

    ``adapter_notes``: what peft says of an adapter on this model. ``watch``: see which experts
    tokens take, where the model has some; ``unseen`` says why not. ``routing``: what sees them.
    ``last``: the sequence that was given last and the experts of its tokens, [tokens, layers, per
    token].

    Raises:
        UnsupportedError: the checkpoint cannot be loaded so, or a setting does not act on it.
        SubjectError: transformers is missing.
    """

    last: tuple[Rollout, Routes] | None = None
    unseen = ""
    adapter_notes: tuple[str, ...] = ()

    def __init__(
        self, folder: Path, settings: Settings, device: torch.device, *, watch: bool = False
    ) -> None:
        try:  # here: no other contract or recording needs transformers
            from kvparity.subjects.hf.loading import from_folder
        except ImportError as error:
            raise SubjectError(
                f"{folder} is scored by transformers, which cannot be imported ({error}): pip "
                'install "kvparity[transformers]"'
            ) from error
        self.settings, self.device = settings, device
        dtype = getattr(torch, settings.dtype)
        adapter = Path(settings.adapter) if settings.adapter else None
        adapter_settings = None if adapter is None else adapters.checked(adapter)
        given = Path(settings.weights or folder)
        loaded = from_folder(given, dtype=dtype, attention=settings.attention, device=device)
        self.model = loaded.model
        self.notes = loaded.notes
        self.vocabulary: int = self.model.config.get_text_config(decoder=True).vocab_size
        if settings.head_weights is not None:
            other = from_folder(
                Path(settings.head_weights),
                dtype=dtype,
                attention=settings.attention,
                device=device,
            )
            _head_of(self.model, other.model)
        if adapter is not None:
            self.model, self.adapter_notes = adapters.adapted(
                self.model,
                adapter,
                adapter_settings,
                merged=settings.merged,
                float32=settings.adapter_dtype == "float32",
            )
        self.routing = self._routed(watch)
        _prepare(self.model, settings)
        self._call: Callable[..., object] = (
            torch.compile(self.model) if settings.compile else self.model
        )

    def score(self, rollouts: Iterator[Rollout]) -> Iterator[Scored]:
        """Each sequence with its logprobs, float32 ``[r]``; micro-batches in the order given.

        Raises:
            RolloutError: a sequence has no prompt or no ids.
            SubjectError: the model fails.
        """
        while part := list(islice(rollouts, self.settings.micro_batch)):
            for each, (found, experts) in zip(part, self._scored(part), strict=True):
                self.last = None if experts is None else (each, experts)
                yield each, found

    def row_behind(self, ids: Ids) -> torch.Tensor:
        """Logits ``[vocab]`` of what follows one sequence, without torch.compile: each length is
        another.

        Raises:
            SubjectError: the model fails.
        """
        try:
            with ExitStack() as stack:
                self._enter(stack, None)
                made = batch([ids], "alone", position_ids=self.settings.position_ids)
                return self._logits(made, self.model).detach()[0, -1]
        except Exception as error:  # other people's code
            raise SubjectError(f"the model raised {told(error)}") from error

    def _routed(self, watch: bool) -> Routing | None:
        recorded = self.settings.routes == "recorded"
        if not (watch or recorded) or self.settings.compile:
            return None
        assert isinstance(self.model, nn.Module)
        try:
            found = Routing.of(self.model)
        except UnsupportedError as error:
            if recorded:
                raise
            self.unseen = str(error)
            return None
        if found is None and recorded:
            raise UnsupportedError(
                f"routes: {type(self.model).__name__} has no mixture of experts, so recorded "
                "routes change nothing; expected routes own"
            )
        return found

    def _scored(self, part: Sequence[Rollout]) -> list[tuple[Logprobs, Routes | None]]:
        ids = [scorable(each) for each in part]
        made = batch(ids, self.settings.layout, position_ids=self.settings.position_ids)
        rows_of = made.rows_of(ids)
        wanted = self._wanted(part, rows_of, made.input_ids.numel())
        try:
            with ExitStack() as stack:
                self._enter(stack, wanted)
                logits = self._logits(made, self._call).detach()
                taken = None if self.routing is None else self.routing.taken().cpu().numpy()
                found = []
                for each, place, rows in zip(part, made.places, rows_of, strict=True):
                    experts = None if taken is None else taken[rows].astype(np.int32)
                    found.append((self._of_response(logits, each, place), experts))
                return found
        except torch.OutOfMemoryError as error:
            raise SubjectError(
                f"the model ran out of memory at {tuple(made.input_ids.shape)} tokens: expected a "
                "smaller micro_batch"
            ) from error
        except RolloutError:
            raise
        except Exception as error:  # other people's code
            raise SubjectError(f"the model raised {told(error)}") from error

    def _of_response(self, logits: torch.Tensor, each: Rollout, place: tuple[int, int]) -> Logprobs:
        rows, tokens = of_response(logits, each, place)
        sampling = _sampling(each) if self.settings.processed else None
        return logprobs(rows, tokens, self.settings.log_softmax, sampling)

    def _wanted(
        self, part: Sequence[Rollout], places: Sequence[slice], rows: int
    ) -> torch.Tensor | None:
        if self.routing is None or self.settings.routes == "own":
            return None
        return self.routing.wanted(part, places, rows)

    def _enter(self, stack: ExitStack, wanted: torch.Tensor | None) -> None:
        settings = self.settings
        if settings.train:
            stack.enter_context(torch.random.fork_rng())
            torch.manual_seed(settings.seed)
        else:
            stack.enter_context(torch.no_grad())
        if settings.invariant:
            stack.enter_context(invariant())
        if self.routing is not None:
            stack.enter_context(self.routing.begin(wanted))

    def _logits(self, made: TokenBatch, call: Callable[..., object]) -> torch.Tensor:
        given = {"input_ids": made.input_ids.to(self.device), "use_cache": False}
        if made.attention_mask is not None:
            given["attention_mask"] = made.attention_mask.to(self.device)
        if made.position_ids is not None:
            given["position_ids"] = made.position_ids.to(self.device)
        kind = self.settings.autocast
        dtype = getattr(torch, kind) if kind else None
        with torch.autocast(self.device.type, dtype=dtype, enabled=kind is not None):
            output = call(**given)
        logits: torch.Tensor = output.logits  # type: ignore[attr-defined]
        return logits


def _sampling(each: Rollout) -> Sampling:
    if each.sampling.temperature is None:
        raise RolloutError(
            f"sequence {each.sequence} has no temperature, and logprobs after it were asked for: "
            "record it, or compare raw logprobs"
        )
    return each.sampling


def _prepare(model: CausalLM, settings: Settings) -> None:
    assert isinstance(model, nn.Module)
    if settings.head_dtype is not None:
        _head(model, getattr(torch, settings.head_dtype))
    if settings.train:
        model.train()
        _check_dropout(model)
    if settings.gradient_checkpointing:
        model.requires_grad_(True)
        new = "activation_checkpointing_enable"  # its name in transformers 5
        getattr(model, new if hasattr(model, new) else "gradient_checkpointing_enable")()


def _head_of(model: CausalLM, other: CausalLM) -> None:
    """The other model's head on this one; an embedding that shares its own stays.

    Raises:
        UnsupportedError: the two heads do not have one shape.
    """
    own, wanted = (_linear(each) for each in (model, other))
    if own.weight.shape != wanted.weight.shape:
        shapes = " and ".join(str(tuple(each.weight.shape)) for each in (own, wanted))
        raise UnsupportedError(f"head_weights: heads of {shapes}; expected one shape")
    model.set_output_embeddings(wanted)  # type: ignore[attr-defined]


def _linear(model: object) -> nn.Linear:
    head = model.get_output_embeddings()  # type: ignore[attr-defined]
    if not isinstance(head, nn.Linear):
        raise UnsupportedError(
            f"head_dtype: the head of {type(model).__name__} is {type(head).__name__} of "
            f"{type(head).__module__}; expected torch's Linear"
        )
    return head


def _head(model: nn.Module, dtype: torch.dtype) -> None:
    """The head's weights and input in another dtype; an embedding that shares them keeps its own.

    Raises:
        UnsupportedError: the model has no head that is one product.
    """
    head = _linear(model)
    other = nn.Linear(head.in_features, head.out_features, head.bias is not None, device="meta")
    other = other.to_empty(device=head.weight.device).to(dtype)
    with torch.no_grad():
        other.weight.copy_(head.weight)
        if head.bias is not None:
            other.bias.copy_(head.bias)
    other.register_forward_pre_hook(lambda module, given: (given[0].to(dtype), *given[1:]))
    model.set_output_embeddings(other)  # type: ignore[operator]


def _check_dropout(model: nn.Module) -> None:
    """Train mode without dropout is eval mode under another name: it is told, not computed."""
    rates = [each.p for each in model.modules() if isinstance(each, nn.Dropout)]
    rates += [
        rate
        for each in model.modules()
        if isinstance(rate := getattr(each, "attention_dropout", None), float)
    ]
    if not any(rates):
        raise UnsupportedError(
            "train: no dropout of this checkpoint is above 0, so train mode changes nothing; "
            "expected a config with one"
        )
