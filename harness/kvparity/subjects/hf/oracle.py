"""The float64 twin of a transformers model: its own code, in its plainest operations."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from kvparity.core.errors import OracleError
from kvparity.core.raised import in_one_line
from kvparity.core.relied.transformers_experts import eager_experts
from kvparity.subjects.hf.protocols import CausalLM


def twin(model: CausalLM) -> CausalLM:
    """A copy of ``model`` in float64 with eager attention and, where it has any, eager experts.

    Grouped products, which transformers takes for experts by default, know no float64.
    """
    copied = copy.deepcopy(model).to(torch.float64)
    copied.set_attn_implementation("eager")
    eager_experts(copied)
    return copied


def logits(
    double: CausalLM, ids: Sequence[int], rows: Sequence[int], device: torch.device
) -> Tensor:
    """Float64 logits ``[len(rows), vocab]`` of a :func:`twin`, over the whole sequence.

    Raises:
        OracleError: the model's own code does not compute in float64.
    """
    tokens = torch.tensor([list(ids)], dtype=torch.int64, device=device)
    try:
        with torch.inference_mode():
            found = double(input_ids=tokens, use_cache=False).logits
    except Exception as error:  # other people's code
        raise refusal(double, error) from error
    return found[0, list(rows)].double()


def refusal(model: CausalLM, error: Exception) -> OracleError:
    """The error to raise where the model's code raised ``error`` in float64."""
    return OracleError(
        f"{type(model).__name__} does not compute in float64, so there is nothing to check its "
        f"accuracy against: {in_one_line(error)}"
    )
