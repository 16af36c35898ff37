"""Inside operations of transformers models: the operator that parts first, and how it adds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tiny_sides import sides
from tiny_transformers import tiny
from torch import Tensor

from kvparity.births.entered import Call, first_operator
from kvparity.births.operators import OperatorCall
from kvparity.run.inside_operator import operator_words

NAMES = ("prefill", "decode")
PLACE = ("w/0", 9)
"""The first token that decode computes alone."""


def norm(*, epsilon: float = 1e-6, halves: bool = False) -> Callable[[Tensor], Tensor]:
    """A norm whose decode has another epsilon, or one that adds halves."""

    def forward(x: Tensor) -> Tensor:
        alone = x.shape[1] == 1
        squares = x.float().pow(2)
        if halves:
            squares = torch.stack(squares.chunk(2, -1) if alone else (squares, squares * 0)).sum(0)
        mean = squares.mean(-1, keepdim=True)
        return x * torch.rsqrt(mean + (epsilon if alone else 1e-6))

    return forward


OPERATIONS: dict[str, tuple[str, Callable[[Tensor], Tensor], str]] = {
    "a norm": ("input_layernorm", norm(epsilon=1e-2), "operator 3 of 5, add, differs first"),
    "other operators": ("input_layernorm", norm(halves=True), "sides ran different operators"),
    "behind it": ("self_attn.q_proj", norm(epsilon=1e-2), "it was given different rows"),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_first_operator_that_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operation, changed, words = OPERATIONS[name]
    subject = tiny("eager", execution="float32")
    layer = subject.model.get_submodule("model.layers.0")
    monkeypatch.setattr(layer.get_submodule("input_layernorm"), "forward", changed)
    found = operator_words(sides(subject, *NAMES), f"model.layers.0.{operation}", PLACE, NAMES)
    assert words in found


def test_products_of_torch_are_entered_where_their_bits_are_replayed() -> None:
    """Which orders torch has is the machine's; a row that differs and is told adds unlike."""
    subject = tiny("eager", execution="float32")
    found = operator_words(sides(subject, *NAMES), "model.layers.0.self_attn.q_proj", PLACE, NAMES)
    if "prefill adds" in found:
        _, _, told = found.partition("prefill adds 64 products as ")
        first, _, second = told.partition(", decode as ")
        assert first != second.partition(";")[0]
    else:
        assert "no replay gives the bits" in found or "ran different operators" in found


def scores(width: int, pad: int, nudge: float = 0.0) -> Call:
    """Scores ``[1, 2, width, keys]`` of the last of ``width`` tokens; pads and later keys vary."""
    rng = torch.Generator().manual_seed(0)
    own = torch.randn(2, 5, generator=rng)
    whole = torch.full((1, 2, width, pad + 5 + width), float(width))
    whole[0, :, -1, pad : pad + 5] = own
    whole[0, 0, -1, pad] += nudge
    made = OperatorCall("matmul", lambda: None, (), whole)
    columns = tuple(range(pad, pad + 5))
    return Call((made,), 1, width, 0, width - 1, whole.shape[-1], columns)


def test_pads_and_hidden_keys_are_no_part_of_a_row() -> None:
    assert first_operator(scores(4, 0), scores(1, 3)) is None
    found = first_operator(scores(4, 0), scores(1, 3, nudge=1.0))
    assert found is not None
    assert (found.differing, found.elements) == (1, 10)
