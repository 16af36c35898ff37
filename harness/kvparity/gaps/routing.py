"""The experts that each token takes: seen while a model runs, or forced to be recorded ones.

A layer of a mixture of experts chooses by one ``topk`` over its experts' scores. That call is
answered here: with the recorded experts, ranked by the model's own scores. All that follows
(renormalisation, scaling, the experts) is the model's own code, so a weight is what this model
gives the experts that it did not choose itself (Rollout Routing Replay, arXiv:2510.11370).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kvparity.core.errors import UnsupportedError
from kvparity.core.relied.transformers_experts import decoder_layers, experts_of
from kvparity.rollouts.record import Rollout, RolloutError, Routes, scorable

_CHOOSES = (torch.topk, Tensor.topk)


class Routing(TorchFunctionMode):
    """Of one model, active around its forwards. ``layers``: numbers of those that have experts.

    Raises:
        UnsupportedError: its experts are not chosen by one ``topk`` in each layer.
    """

    def __init__(self, model: nn.Module, experts: int, per_token: int) -> None:
        super().__init__()
        self.experts, self.per_token = experts, per_token
        self._seen: dict[int, list[Tensor]] = {}
        self._wanted: Mapping[int, Tensor] = {}
        self._layer: int | None = None
        every = decoder_layers(model)
        self.depth = len(every)
        for number, layer in enumerate(every):
            layer.register_forward_pre_hook(partial(self._at, number))
            layer.register_forward_hook(partial(self._at, None))
        device = next(model.parameters()).device
        with torch.no_grad(), self:
            model(input_ids=torch.zeros(1, 1, dtype=torch.int64, device=device), use_cache=False)
        if not self._seen or any(len(each) > 1 for each in self._seen.values()):
            name = type(model).__name__
            raise UnsupportedError(
                f"routes of {name}: its layers make {sum(map(len, self._seen.values()))} choices "
                f"of {per_token} of {experts} experts that are seen; expected one in each that has "
                "experts"
            )
        self.layers = tuple(sorted(self._seen))

    @classmethod
    def of(cls, model: nn.Module) -> Routing | None:
        """Of a model; None where it has no experts."""
        found = experts_of(model)
        return None if found is None else cls(model, *found)

    def begin(self, wanted: Tensor | None) -> Routing:
        """Before a forward. ``wanted``: int64 [rows, layers, per token]; -1: the model's own."""
        self._seen, self._layer, self._wanted = {}, None, {}
        if wanted is not None:
            self._wanted = {layer: wanted[:, at] for at, layer in enumerate(self.layers)}
        return self

    def taken(self) -> Tensor:
        """After a forward: int64 [rows, layers, per token], of every row that was computed."""
        return torch.stack([self._seen[layer][0] for layer in self.layers], dim=1)

    def recorded(self, each: Rollout) -> Routes:
        """The recorded experts, [tokens - 1, layers, per token], of layers that have some.

        The row of the last token scores nothing, and engines have none for it (prime-rl: zeros).

        Raises:
            RolloutError: there are none, or they are not of this model.
        """
        if each.routes is None:
            raise RolloutError(
                f"sequence {each.sequence} has no routes: record them (routes of RolloutWriter) to "
                "replay them"
            )
        start = f"sequence {each.sequence}: its routes"
        routes = each.routes[: scorable(each).size - 1]
        _, layers, width = routes.shape
        if layers not in (self.depth, len(self.layers)):
            every = f", or all {self.depth}" if self.depth > len(self.layers) else ""
            raise RolloutError(
                f"{start} are of {layers} layers; expected {len(self.layers)}, those of the model "
                f"that have experts{every}"
            )
        if width != self.per_token:
            raise RolloutError(
                f"{start} name {width} experts for each token; the model takes {self.per_token}"
            )
        found = routes[:, list(self.layers)] if layers == self.depth else routes
        outside = (found < 0) | (found >= self.experts)
        ranked = np.sort(found, axis=-1)
        twice = (ranked[..., 1:] == ranked[..., :-1]).any(-1)
        for wrong, words in (
            (outside.any(-1), f"expected {width} of its {self.experts}"),
            (twice, "expected each once"),
        ):
            if wrong.any():
                token, at = np.argwhere(wrong)[0]
                raise RolloutError(
                    f"{start} give token {token} in layer {self.layers[at]} the experts "
                    f"{found[token, at].tolist()}; {words}"
                )
        return found

    def wanted(self, part: Sequence[Rollout], places: Sequence[slice], rows: int) -> Tensor:
        """What ``begin`` takes, of sequences whose tokens lie in ``places`` of ``rows``.

        Raises:
            RolloutError: one has no routes, or not of this model.
        """
        shape = (rows, len(self.layers), self.per_token)
        found = torch.full(shape, -1, dtype=torch.int64)
        for each, place in zip(part, places, strict=True):
            routes = torch.from_numpy(self.recorded(each).astype(np.int64))
            found[place][: len(routes)] = routes
        return found

    def _at(self, number: int | None, *_: object) -> None:
        self._layer = number

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Every call of torch passes here; only the choice of experts is answered otherwise."""
        found = func(*args, **(kwargs or {}))
        layer = self._layer
        if layer is None or func not in _CHOOSES:
            return found
        assert isinstance(found, torch.return_types.topk)
        scores = args[0] if args else (kwargs or {})["input"]
        assert isinstance(scores, Tensor)
        rows, last = found.indices.shape[:-1], found.indices.shape[-1]
        if len(rows) != 1 or last != self.per_token or scores.shape[-1] != self.experts:
            return found
        values, indices = found.values, found.indices
        if layer in self._wanted:
            values, indices = _ranked(scores, values, indices, self._wanted[layer])
        self._seen.setdefault(layer, []).append(indices)
        return torch.return_types.topk((values, indices))


def _ranked(
    scores: Tensor, values: Tensor, indices: Tensor, wanted: Tensor
) -> tuple[Tensor, Tensor]:
    """The wanted experts, best first; rows that took them anyway stay as they are."""
    wanted = wanted.to(indices.device)
    other = (wanted[:, :1] >= 0) & ~same(wanted, indices)[:, None]
    best, order = scores.gather(-1, wanted.clamp(min=0)).sort(dim=-1, descending=True)
    return (
        torch.where(other, best, values),
        torch.where(other, wanted.gather(-1, order), indices),
    )


def same(one: Tensor, other: Tensor) -> Tensor:
    """Which rows name the same experts, in any order: bool [...] of [..., per token]."""
    return (one.sort(-1).values == other.sort(-1).values).all(-1)
