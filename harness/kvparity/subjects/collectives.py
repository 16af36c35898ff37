"""Collectives as they really run, whoever calls them: each becomes an event.

torch sends every collective through its dispatcher before a backend (gloo, NCCL) has it. What adds
inside of one, and in which order, is the backend's and cannot be seen there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from kvparity.subjects.events import Communicated
from kvparity_kernels.relied.torch import OpOverload, TorchDispatchMode, schema
from kvparity_kernels.stream import emit

NAMESPACES = ("c10d", "_c10d_functional")


class WatchedCollectives(TorchDispatchMode):  # type: ignore[no-untyped-call] # so is all of the class
    """Reports every collective that is called inside."""

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Report a collective, and run it as it is."""
        if func.namespace in NAMESPACES:
            put = _put_in(args)
            formats = {str(each.dtype).removeprefix("torch.") for each in put}
            size = sum(each.nbytes for each in put)
            operator = schema(func).name.partition("::")[2]
            emit(Communicated(operator, _ranks(args), ", ".join(sorted(formats)), size))
        return func(*args, **(kwargs or {}))


def _ranks(args: tuple[Any, ...]) -> int:
    """The size of the group that a collective is given; 0 where it is given none."""
    for each in args:
        if isinstance(each, torch.ScriptObject):
            with suppress(RuntimeError):  # options of a sum are one, too
                return int(dist.ProcessGroup.unbox(each).size())
    return 0


def _put_in(args: tuple[object, ...]) -> list[Tensor]:
    """What a rank puts in: where outputs come first, the second list of tensors."""
    lists = [found for each in args[:2] if (found := list(_tensors(each)))]
    return lists[-1] if lists else []


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)
