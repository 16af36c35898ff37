"""Which operators of torch really ran between two reports of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from kvparity.locate.digests import computing
from kvparity.record.path_run import PathRun
from kvparity.subjects.events import Computed
from kvparity_kernels.relied.torch import TorchDispatchMode

Executed = tuple[str, ...]
"""Names of operators that compute, in order, each with the shapes of its tensors."""
_MOVES = {
    "_to_copy", "_unsafe_view", "alias", "as_strided", "cat", "clone", "contiguous", "copy_",
    "detach", "empty", "empty_like", "expand", "lift_fresh", "permute", "reshape", "select",
    "slice", "split", "split_with_sizes", "squeeze", "t", "to", "transpose", "unbind",
    "unsafe_split", "unsqueeze", "view",
}  # fmt: skip
"""What gives no new number: it moves or rounds what is there."""
SEEN = " keys seen"
"""The end of the name under which a row's first key, and how many it sees, are told."""


class OperatorLog(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's own
    """Writes down what torch executes while it is in force."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ran: list[str] = []

    def taken(self) -> Executed:
        """What ran since this was last asked."""
        found, self._ran = tuple(self._ran), []
        return found

    def kept(self, ran: Executed) -> None:
        """Go on as if this had run alone."""
        self._ran = list(ran)

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Note the operator, and let it run."""
        name = str(func).removeprefix("aten.").partition(".")[0]
        if name not in _MOVES:
            shapes = [str(list(each.shape)) for each in args if isinstance(each, Tensor)]
            self._ran.append(f"{name} {' '.join(shapes)}")
        return func(*args, **(kwargs or {}))


@contextmanager
def hearing(run: PathRun, hear: Callable[[Computed, Executed], None]) -> Iterator[None]:
    """Call ``hear`` with what a path computes and what torch executed for it.

    What attention was given may be told when it has run: that is not what was executed for.
    """
    operators = OperatorLog()

    def heard(event: Computed) -> None:
        ran = operators.taken()
        hear(event, ran)
        operators.taken()  # what the listener itself computed
        if event.read or event.operation.endswith(SEEN):
            operators.kept(ran)

    with operators, computing(run, heard):
        yield
