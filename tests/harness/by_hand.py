"""Births of a transformers model, recomputed by hand on both shapes.

The shape of the reference, all rows of a sequence at once, and that of decode: the prompt's rows at
once, every later row alone. Inputs are what the reference was given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from kvparity.births.transplant import Birth
from kvparity.core.bits import bits
from kvparity.record.path_run import PathRun
from kvparity.subjects.events import Computed
from kvparity_kernels.stream import listening

Given = dict[tuple[str, str], Tensor]
"""By operation and sequence: what it gave on the reference's path, or was given (``input``)."""


@dataclass
class ByHand:
    """How many births gave the same bits by hand, which did not, and what is not recomputed."""

    equal: Counter[str] = field(default_factory=Counter)
    unlike: list[Birth] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)


def recomputed(
    subject: Any, reference: PathRun, births: Iterable[Birth], prompts: Mapping[str, int]
) -> ByHand:
    """Compare births in linear layers and in SDPA with both values that they report.

    ``prompts``: the length of each sequence's prompt, in the order in which they are computed.
    """
    modules, given = dict(subject.model.named_modules()), _given(subject, reference, prompts)
    found = ByHand()
    for birth in births:
        module = modules.get(birth.operation.removesuffix(" attention"))
        if birth.operation.endswith(" attention"):
            both = _by_sdpa(given, birth, module, prompts[birth.sequence])
        elif isinstance(module, nn.Linear):
            both = _by_linear(given, birth, module, prompts[birth.sequence])
        else:
            found.left[birth.operation.rpartition(".")[2]] += 1
            continue
        by_hand = torch.stack([each.flatten()[birth.column] for each in both])
        values = torch.tensor([birth.reference, birth.candidate], dtype=by_hand.dtype)
        if torch.equal(bits(values), bits(by_hand)):
            found.equal[birth.operation.rpartition(".")[2]] += 1
        else:
            found.unlike.append(birth)
    return found


def _given(subject: Any, reference: PathRun, prompts: Mapping[str, int]) -> Given:
    given: Given = {}
    names, calls, handles = list(prompts), Counter[str](), []

    def hear(event: Computed) -> None:
        place = event.places[0][0]
        assert place is not None
        if event.operation.endswith((" query", " keys", " values")):
            given[event.operation, place[0]] = event.rows.clone()

    for name, module in subject.model.named_modules():
        if isinstance(module, nn.Linear):

            def entered(module: object, args: tuple[Any, ...], name: str = name) -> None:
                given[f"{name} input", names[calls[name]]] = args[0].clone()
                calls[name] += 1

            handles.append(module.register_forward_pre_hook(entered))
    try:
        with torch.inference_mode(), listening(Computed, hear):
            reference.run()
    finally:
        for handle in handles:
            handle.remove()
    return given


def _step(birth: Birth, prompt: int) -> slice:
    """Rows of a prompt are computed together, those that are decoded alone."""
    at = birth.position
    return slice(0, prompt) if at < prompt else slice(at, at + 1)


def _by_linear(given: Given, birth: Birth, module: nn.Linear, prompt: int) -> tuple[Tensor, Tensor]:
    x, step = given[f"{birth.operation} input", birth.sequence], _step(birth, prompt)
    whole = linear(x, module.weight, module.bias)[0, birth.position]
    part = linear(x[:, step].clone(), module.weight, module.bias)
    return whole, part[0, birth.position - step.start]


def _by_sdpa(given: Given, birth: Birth, module: Any, prompt: int) -> tuple[Tensor, Tensor]:
    name, step = birth.operation.removesuffix(" attention"), _step(birth, prompt)
    q, k, v = (
        given[f"{name} {part}", birth.sequence].transpose(1, 2)
        for part in ("query", "keys", "values")
    )
    more = {"scale": module.scaling, "enable_gqa": q.shape[1] != k.shape[1]}
    whole = scaled_dot_product_attention(q, k, v, is_causal=True, **more)
    q, k, v = q[:, :, step].clone(), k[:, :, : step.stop].clone(), v[:, :, : step.stop].clone()
    part = scaled_dot_product_attention(q, k, v, is_causal=step.start == 0, **more)
    return whole[0, :, birth.position], part[0, :, birth.position - step.start]
