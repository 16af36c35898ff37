"""The transformers subject over a model that computes nothing."""

from __future__ import annotations

import copy
from typing import Any

import torch
from plain_host import CONFIG
from torch import Tensor

from kvparity.subjects.hf.subject import TransformersSubject
from kvparity_kernels.order import ReductionOrder


class Model(torch.nn.Module):
    """Says what generate() was asked, and appends the only token that is left possible."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = copy.deepcopy(CONFIG)
        for name, value in config.items():
            vars(self.config)[name] = value
        self.asked: dict[str, Any] = {}
        self.spoil: Any = lambda ids: ids

    def forward(self, input_ids: Tensor, past_key_values: Any = None) -> None: ...

    def generate(
        self, ids: Tensor, *, attention_mask: Tensor, generation_config: Any, logits_processor: Any
    ) -> Tensor:
        self.asked = vars(generation_config) | {"mask": attention_mask.tolist()}
        scores = torch.arange(float(CONFIG.vocab_size))[None]
        self.left: list[list[float]] = []
        for _ in range(generation_config.max_new_tokens):
            forced = logits_processor(ids, scores)
            self.left.append(forced[0].tolist())
            ids = torch.cat([ids, forced.argmax(1, keepdim=True)], dim=1)
        return self.spoil(ids)


def subject(model: Any = None, **more: Any) -> TransformersSubject:
    how: dict[str, Any] = {"attention": "eager", "cache": "dynamic", "order": ReductionOrder()}
    return TransformersSubject(model or Model(), **how | {"device": torch.device("cpu")} | more)
