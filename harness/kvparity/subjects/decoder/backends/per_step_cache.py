"""What all layers of a step share, made once: lengths on the host, indices, plans."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from torch import Tensor

T = TypeVar("T")
KEPT = 16


class Memo(Generic[T]):
    """Values by the identity of the tensors that they were made from.

    The layers of a step are handed the same tensors, and reading a length back from a device waits
    for it. The tensors are kept with the value, so none of their identities is given away; one that
    is written to afterwards would not be noticed, so lengths and tables must not be.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, tuple[Sequence[Tensor | None], T]] = OrderedDict()

    def get(self, tensors: Sequence[Tensor | None], more: Hashable, make: Callable[[], T]) -> T:
        """The value for these tensors and ``more``, made now if it was not before."""
        key = (tuple(map(id, tensors)), more)
        if key not in self._kept:
            self._kept[key] = (tuple(tensors), make())
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return self._kept[key][1]
