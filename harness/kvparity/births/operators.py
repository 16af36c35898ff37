"""Which operators of torch really ran between two reports of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from torch import Tensor

from kvparity.births.digests import computing
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


@dataclass(frozen=True)
class OperatorCall:
    """One operator: the function, what it was given, and the first tensor that it gave."""

    name: str
    function: Callable[..., object]
    given: tuple[object, ...]
    gave: Tensor

    def kept(self) -> OperatorCall:
        """With tensors of its own: what comes later may write into these."""
        given = (x.clone() if isinstance(x, Tensor) else x for x in self.given)
        return replace(self, given=tuple(given), gave=self.gave.clone())


class OperatorLog(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's own
    """Writes down what torch executes while it is in force."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ran: list[str] = []
        self._calls: list[OperatorCall] = []

    def taken(self) -> Executed:
        """What ran since this was last asked."""
        found = tuple(self._ran)
        self.taken_whole()
        return found

    def taken_whole(self) -> Sequence[OperatorCall]:
        """What gave a tensor since this was last asked."""
        found, self._ran, self._calls = self._calls, [], []
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
        gave = func(*args, **(kwargs or {}))
        if name not in _MOVES:
            shapes = [str(list(each.shape)) for each in args if isinstance(each, Tensor)]
            self._ran.append(f"{name} {' '.join(shapes)}")
            first = gave[0] if isinstance(gave, tuple) else gave
            if isinstance(first, Tensor):
                self._calls.append(OperatorCall(name, func, args, first))
        return gave


@contextmanager
def hearing(run: PathRun, hear: Callable[[Computed, Executed], None]) -> Iterator[None]:
    """Call ``hear`` with what a path computes and what torch executed for it.

    What attention was given may be told when it has run: that is not what was executed for.
    """
    operators = OperatorLog()
    before: Executed | None = None

    def heard(event: Computed) -> None:
        nonlocal before
        ran = operators.taken()
        if event.operation.endswith(SEEN) and before is not None:
            ran = before  # a mask was looked at, which is no part of the model
        hear(event, ran)
        operators.taken()  # what the listener itself computed
        before = ran if event.read or event.operation.endswith(SEEN) else None
        if before is not None:
            operators.kept(before)

    with operators, computing(run, heard):
        yield
