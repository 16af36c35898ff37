"""torch.compile with nothing silent: whole graphs only, and every run of compiled code counted."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Generic, ParamSpec, TypeVar

import torch
from torch import Tensor

from kvparity.core.errors import SubjectError
from kvparity_kernels.relied.torch import compile_fx

P = ParamSpec("P")
R = TypeVar("R")


class Compiled(Generic[P, R]):
    """``module`` compiled by inductor as one graph; ``runs`` counts executions of compiled code.

    torch.compile can be switched off from outside (``TORCH_COMPILE_DISABLE``) and then runs the
    module as it is. The count is taken in the code that inductor made, so that shows.
    """

    def __init__(self, module: Callable[P, R], *, dynamic: bool | None = None) -> None:
        self.runs: Counter[str] = Counter()
        self.call: Callable[P, R] = torch.compile(
            module, fullgraph=True, dynamic=dynamic, backend=self._backend
        )

    def _backend(
        self, graph: torch.fx.GraphModule, inputs: Sequence[Tensor]
    ) -> Callable[..., object]:
        self.runs["graphs"] += 1
        with warnings.catch_warnings():  # torch 2.13's compiler imports what torch 2.13 deprecates
            warnings.simplefilter("ignore", DeprecationWarning)
            made = compile_fx(graph, list(inputs))

        def counted(*args: object) -> object:
            self.runs["runs"] += 1
            return made(*args)

        return counted

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it.

        Raises:
            SubjectError: torch ran the module without compiling it.
        """
        before = self.runs["runs"]
        found = self.call(*args, **kwargs)
        if self.runs["runs"] == before:
            raise SubjectError(
                "torch.compile ran the module uncompiled; is TORCH_COMPILE_DISABLE or "
                "TORCHDYNAMO_DISABLE set in the environment?"
            )
        return found
