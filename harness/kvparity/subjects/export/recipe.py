"""Programs of a transformers model, exported as its users export it.

``TorchExportableModuleForDecoderOnlyLM`` (``transformers.integrations.executorch``) is the way that
transformers itself offers: a static cache in the module's buffers, and two inputs, ``input_ids``
and ``cache_position``. It keeps a static layer without a window in the place of a sliding one.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.export import ExportedProgram
from transformers import GenerationConfig

from kvparity.core.relied import transformers as relied
from kvparity.subjects.export.inspection import TracedValue, baked
from kvparity.subjects.export.tracing import traced
from kvparity.subjects.hf.layers import holders
from kvparity.subjects.hf.protocols import Cache, CausalLM
from kvparity_kernels.relied.torch import without_pre_hooks

_ROWS = 5  # of the traced prefill; any number of rows is free
_STATE = ("key_cache_", "value_cache_", "cumulative_length_")


@dataclass(frozen=True)
class Recipe:
    """What was exported: the program, what runs it, and the empty cache of its buffers."""

    program: ExportedProgram
    module: torch.nn.Module
    cache: Cache

    def attention(self) -> str:
        """The attention in the graph: ``sdpa``, or ``eager`` where there is a softmax alone."""
        names = {str(node.target) for node in self.program.graph.nodes}
        return "sdpa" if any("scaled_dot_product" in name for name in names) else "eager"


def export(model: CausalLM, capacity: int, *, rows: int) -> Recipe:
    """Export one forward over a static cache of ``capacity`` slots, not inspected yet.

    ``rows`` 1: the decode step; more: a prefill of any number of rows.

    Raises:
        SubjectError: it cannot be exported.
    """

    def exported() -> Recipe:
        with warnings.catch_warnings(), _plain(model, capacity):
            # What transformers 5.23 makes torch 2.13 warn of: its collector of hidden states.
            side_effects = "While compiling, we found certain side effects"
            warnings.filterwarnings("ignore", message=side_effects)
            module = relied.EXPORTABLE.get()(model, 1, capacity)
            cache = getattr(module.model, "static_cache", None) or module.model.cache
            count = 1 if rows == 1 else min(_ROWS, capacity - 1)
            free = None
            if count > 1:
                size = torch.export.Dim("rows", min=1, max=capacity)
                free = {"input_ids": {1: size}, "cache_position": {0: size}}
            program = module.export(
                torch.ones(1, count, dtype=torch.int64, device=model.device),
                cache_position=torch.arange(count, device=model.device),
                dynamic_shapes=free,
            )
            return Recipe(program, program.module(), cache)

    return traced(type(model).__name__, exported)


def findings(model: CausalLM, recipe: Recipe) -> list[TracedValue]:
    """What of the traced call is left in the program; see ``inspection.baked``."""
    fed, idle = state(recipe.program), []
    for number, layer in holders(recipe.cache).items():
        if not layer.keys.numel():  # it reads another layer's cache, and has none
            idle += [name for name in fed if name.rsplit("_", 1)[1] == str(number)]
    own = [*model.parameters(), *model.buffers(), *(fed[name] for name in idle)]
    return baked(recipe.program, own, fed=fed.keys() - set(idle))


def state(program: ExportedProgram) -> dict[str, Tensor]:
    """The buffers that hold a cache, by name."""
    return {n: x for n, x in program.named_buffers() if n.startswith(_STATE)}


@contextmanager
def _plain(model: CausalLM, capacity: int) -> Iterator[None]:
    """The settings that the recipe insists on, and no hook of the harness in the graph."""
    before = model.generation_config
    model.generation_config = GenerationConfig(
        use_cache=True,
        cache_implementation="static",
        cache_config={"batch_size": 1, "max_cache_len": capacity},
    )
    try:
        with without_pre_hooks(model):
            yield
    finally:
        model.generation_config = before
